"""Labels of classes."""

from pathlib import Path

import pytest

from models import labels
from models.labels import LabelsError, read_labels


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


def told(path: Path) -> list[tuple[str, str]]:
    return [(label.id, label.name) for label in read_labels(path)]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"cat\ndog\n", [("0", "cat"), ("1", "dog")]),
        (b"cat\ndog", [("0", "cat"), ("1", "dog")]),
        (b"cat\r\ndog\r\n", [("0", "cat"), ("1", "dog")]),
        (b"\xef\xbb\xbfcat\n", [("0", "cat")]),  # as Notepad saves it
        (b"n01\tcat\nn02\tbig dog\n", [("n01", "cat"), ("n02", "big dog")]),
        (b" n01 \t cat \n", [("n01", "cat")]),
        (b"n01\tcat\ndog\n", [("n01", "cat"), ("1", "dog")]),
        (b"cat\ncat\n", [("0", "cat"), ("1", "cat")]),  # names need not be unique
        ("Löwe\n猫\n".encode(), [("0", "Löwe"), ("1", "猫")]),
        (b"cat, tabby\n", [("0", "cat, tabby")]),
    ],
)
def test_a_file_has_a_label_on_each_line(
    content: bytes, expected: list[tuple[str, str]], tmp_path: Path
) -> None:
    (tmp_path / "labels.txt").write_bytes(content)
    assert told(tmp_path / "labels.txt") == expected


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", r"labels\.txt, line 1, is empty; each line is the name of a class"),
        (b"cat\n\ndog\n", "line 2, is empty"),
        (b"cat\ndog\n \t \n", "line 3, is empty"),
        (b"a\tcat\na\tdog\na\tcow\n", "has the id 'a' 3 times; ids tell classes apart"),
        (b"1\tcat\ndog\n", "has the id '1' 2 times"),
        (b"\xff\xfe\x00", r"cannot read labels .*labels\.txt: .*utf-8"),
    ],
)
def test_a_file_that_is_no_list_of_labels_is_refused(
    content: bytes, said: str, tmp_path: Path
) -> None:
    (tmp_path / "labels.txt").write_bytes(content)
    with pytest.raises(LabelsError, match=said):
        read_labels(tmp_path / "labels.txt")


def test_a_missing_file_of_labels_is_named(tmp_path: Path) -> None:
    with pytest.raises(LabelsError, match=r"cannot read labels .*absent\.txt: "):
        read_labels(tmp_path / "absent.txt")
