"""Every fault that is tried, and what became of it: build/faults.json, build/faults.md.

`python -m tests.e2e.faults` puts the table into the README.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

from tests.e2e.faults.load import Load

_ROOT = Path(__file__).parents[3]
BUILD, README = _ROOT / "build", _ROOT / "README.md"
_BEGIN, _END = "<!-- faults: made by python -m tests.e2e.faults -->", "<!-- end of faults -->"
_HEAD = """\
| fault | who causes it sees | the others see | lost | slowest | normal |
|---|---|---|---|---|---|"""
_LOST = ("reset", "cut", "silent", "wrong")


class Fault(StrEnum):
    """One row of the table each."""

    SIGTERM = "SIGTERM"
    SIGKILL = "the worker dies of SIGKILL"
    SIGSEGV = "the worker dies of SIGSEGV"
    SIGFPE = "the worker dies of SIGFPE"
    SLOW_LORIS = "200 clients send a header or body byte by byte"
    HALF_OPEN = "200 clients fall silent, or close their half"
    GONE_UPLOADING = "100 clients vanish in the middle of an upload"
    GONE_WAITING = "10 clients vanish while 80 images wait"
    FULL_DISK = "full disk: no file may grow, the log neither"
    READ_ONLY = "read-only file system"
    DELETED = "the artifact is deleted"
    TRUNCATED = "the artifact is cut off"
    SWAPPED = "the artifact is replaced by another"
    MODEL_FAILS = "another model fails whenever it runs"
    MEMORY = "memory is short, and images are huge"
    DESCRIPTORS = "200 idle clients, 128 file descriptors"
    CLOCK = "the clock jumps a day ahead, and back two"
    MALFORMED = "10,000 malformed requests"
    BOMBS = "a decoder bomb of each format"
    RUN_RAISES = "a run raises an error"
    RUN_HANGS = "a run hangs"


@dataclass(frozen=True, slots=True)
class Row:
    """cause: what came back to whoever caused it; slowest, normal: seconds, None is no more."""

    cause: str
    others: dict[str, int]
    slowest_s: float
    normal_after_s: float | None

    @property
    def lost(self) -> int:
        """Good requests that were accepted and not answered."""
        return sum(self.others.get(what, 0) for what in _LOST)

    def cells(self) -> list[str]:
        """All but the first."""
        seen = told(self.others)
        normal = "it has ended" if self.normal_after_s is None else _seconds(self.normal_after_s)
        return [self.cause or "–", seen, str(self.lost), _seconds(self.slowest_s), normal]


def record(fault: Fault, load: Load, cause: str = "", *, ended: bool = False) -> None:
    """Write down what the load saw; the row takes the place of an older one."""
    normal = None if ended else load.normal_after_s
    rows = read() | {fault: Row(cause, dict(load.seen), load.slowest_s, normal)}
    BUILD.mkdir(exist_ok=True)
    kept = {fault.name: asdict(rows[fault]) for fault in Fault if fault in rows}
    (BUILD / "faults.json").write_text(json.dumps(kept, indent=1), encoding="utf-8")
    (BUILD / "faults.md").write_text(table(rows) + "\n", encoding="utf-8")


def read() -> dict[Fault, Row]:
    """What was recorded so far."""
    path = BUILD / "faults.json"
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return {Fault[name]: Row(**row) for name, row in found.items() if name in Fault.__members__}


def table(rows: dict[Fault, Row]) -> str:
    """All rows there are, in order, as Markdown."""
    lines = [f"| {' | '.join([fault, *rows[fault].cells()])} |" for fault in Fault if fault in rows]
    return "\n".join([_HEAD, *lines])


def into(readme: str, made: str) -> str:
    """That text with the table between its marks."""
    before, _, rest = readme.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    return f"{before}{_BEGIN}\n{made}\n{_END}{after}"


def named(readme: str) -> list[str]:
    """The faults of the table there."""
    made = readme.partition(_BEGIN)[2].partition(_END)[0]
    rows = [line for line in made.splitlines() if line.startswith("| ")]
    return [row.split("|")[1].strip() for row in rows[1:]]


def told(seen: Mapping[str, int]) -> str:
    """What came back, and how often."""
    return ", ".join(f"{count} × {what}" for what, count in sorted(seen.items(), key=_right_first))


def _right_first(one: tuple[str, int]) -> tuple[bool, str]:
    return one[0] != "right", one[0]


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds else "at once"
