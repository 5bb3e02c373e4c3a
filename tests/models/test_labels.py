"""Labels of classes."""

from models import labels


def test_imagenet_has_its_thousand_classes_in_the_usual_order() -> None:
    classes = labels.imagenet()
    assert len(classes) == 1000
    assert (classes[0].id, classes[0].name) == ("n01440764", "tench")
    assert (classes[388].id, classes[388].name) == ("n02510455", "giant panda")
    assert classes[999].id == "n15075141"
    assert len({label.id for label in classes}) == 1000


def test_imagenet_names_are_not_unique() -> None:
    classes = labels.imagenet()
    assert [i for i, label in enumerate(classes) if label.name == "crane"] == [134, 517]


def test_classes_without_names_are_numbered() -> None:
    assert [(label.id, label.name) for label in labels.numbered(3)] == [
        ("0", "0"),
        ("1", "1"),
        ("2", "2"),
    ]
