"""What became of each network, kept as one JSON file each, and the table of them all."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from models.card import Card

LIBRARIES = {"tv": "torchvision", "timm": "timm"}


@dataclass(frozen=True, slots=True)
class Result:
    """One network: its artifact's limits and errors, or the reason why there is none.

    error, mixed_error: largest |difference| / max|logit|, against torch and in mixed batches
    smallest: height and width
    """

    network: str
    seconds: float
    reason: str | None = None
    smallest: tuple[int, int] | None = None
    multiple: int | None = None
    error: float | None = None
    worst: str | None = None
    mixed_error: float | None = None
    mixed_reason: str | None = None

    @classmethod
    def of(cls, network: str, seconds: float, card: Card) -> "Result":
        """Of a network whose artifact was written."""
        assert card.parity is not None  # no artifact is published without it
        return cls(
            network,
            seconds,
            smallest=card.limits.smallest(),
            multiple=card.limits.multiple,
            error=card.parity.worst,
            worst=card.parity.worst_case,
            mixed_error=None if card.mixed.parity is None else card.mixed.parity.worst,
            mixed_reason=card.mixed.reason,
        )

    @property
    def library(self) -> str:
        return LIBRARIES[self.network.partition("_")[0]]

    @property
    def plain(self) -> bool:
        """Whether there is an artifact."""
        return self.reason is None

    @property
    def mixed(self) -> bool:
        """Whether it also takes images of different sizes in one batch."""
        return self.plain and self.mixed_reason is None

    def save(self, folder: Path) -> None:
        """Write NAME.json, whole or not at all."""
        folder.mkdir(parents=True, exist_ok=True)
        draft = folder / f".{self.network}.json"
        draft.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")
        draft.rename(path_of(folder, self.network))


def path_of(folder: Path, network: str) -> Path:
    """Where the result of a network is kept."""
    return folder / f"{network}.json"


def load(folder: Path, networks: Sequence[str]) -> list[Result]:
    """The results that are there, in the order of the names."""
    paths = [path_of(folder, network) for network in networks]
    return [_read(path) for path in paths if path.exists()]


def _read(path: Path) -> Result:
    said: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    smallest = said.pop("smallest")
    return Result(**said, smallest=None if smallest is None else tuple(smallest))


def markdown(results: Sequence[Result]) -> str:
    """The table, a row for each network, and under it the shares of each library."""
    head = ("network", "min side, multiple", "error vs torch", "in mixed batches", "seconds")
    rows = [head, ("---",) * len(head), *map(_row, results)]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return f"{table}\n\n{shares(results)}"


def shares(results: Sequence[Result]) -> str:
    """How many of each library's networks were exported, and how many take mixed batches."""
    lines = []
    for library in LIBRARIES.values():
        ours = [result for result in results if result.library == library]
        if ours:
            plain, mixed = sum(r.plain for r in ours), sum(r.mixed for r in ours)
            whole = len(ours)
            lines.append(
                f"{library}: {plain} of {whole} exported, {mixed} of {whole} in mixed batches"
            )
    return "".join(f"{line}\n" for line in lines)


def _row(result: Result) -> tuple[str, ...]:
    name, seconds = f"`{result.network}`", f"{result.seconds:.0f}"
    if result.smallest is None or result.error is None:
        return name, "", _cell(_short(result.reason or "no card")), "", seconds
    height, width = result.smallest
    side = str(height) if height == width else f"{height}×{width}"
    limits = side if result.multiple == 1 else f"{side}, {result.multiple}"
    mixed = "not compared" if result.mixed_error is None else f"{result.mixed_error:.0e}"
    return name, limits, f"{result.error:.0e}", _cell(result.mixed_reason or mixed), seconds


def _short(reason: str) -> str:
    """The first and last line, since a trace stands between them where there is one."""
    lines = reason.strip().splitlines()
    return reason if len(lines) < 4 else f"{lines[0]} … {lines[-1]}"


def _cell(text: str, most: int = 200) -> str:
    """Text as a table's cell may hold it: one line, no bars, not too long."""
    line = " ".join(text.replace("|", "/").split())
    return line if len(line) <= most else f"{line[: most - 1]}…"
