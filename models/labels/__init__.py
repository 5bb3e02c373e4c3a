"""Class labels: index, id and name."""

from collections import Counter
from importlib.resources import files
from pathlib import Path

from models.card import Label


class LabelsError(ValueError):
    """A file of labels that cannot be used; the message says which line, and what is expected."""


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


def read_labels(path: Path) -> tuple[Label, ...]:
    """Labels from a text file: a line for each class, in order, its name or `id<TAB>name`.

    Without an id, a class's index is its id. Raises LabelsError.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as exc:
        raise LabelsError(f"cannot read labels {path}: {exc}") from exc
    empty = [number for number, line in enumerate(lines, 1) if not line.strip()]
    if empty or not lines:
        raise LabelsError(
            f"{path}, line {empty[0] if empty else 1}, is empty; each line is the name of a class, "
            "or its id, a tab and its name"
        )
    parts = [line.strip().rpartition("\t") for line in lines]
    labels = tuple(
        Label(id=id_.strip() or str(index), name=name.strip())
        for index, (id_, _, name) in enumerate(parts)
    )
    (id_, count), *_ = Counter(label.id for label in labels).most_common(1)
    if count > 1:
        raise LabelsError(f"{path} has the id {id_!r} {count} times; ids tell classes apart")
    return labels
