"""Class labels: index, id and name."""

from importlib.resources import files

from models.card import Label


def imagenet() -> tuple[Label, ...]:
    """The 1000 classes of ImageNet-1k: WordNet id and first WordNet name, in index order.

    Names are not unique (crane, maillot): tell classes apart by index or id.
    """
    text = files(__package__).joinpath("imagenet.txt").read_text(encoding="utf-8")
    rows = (line.split(" ", 1) for line in text.splitlines())
    return tuple(Label(id=wnid, name=name) for wnid, name in rows)


def numbered(count: int) -> tuple[Label, ...]:
    """Labels for classes that have no names: "0", "1", …"""
    return tuple(Label(id=str(i), name=str(i)) for i in range(count))
