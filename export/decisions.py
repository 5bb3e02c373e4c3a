"""What a forward decides by the size of its input, since torch.export keeps one of the answers.

`if x.shape[2] > 1000:` becomes, in the exported program, whatever the example made of it, for every
size and without a word. While `watched` is active, each such place in the author's code is noted;
the grid of sizes then has one at which the answer is the other one, so that verification shows
whether it matters. Where a size becomes a plain number, nothing can be kept dynamic: those
places are noted too. Imports torch only.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from export.diagnosis import theirs


@dataclass(frozen=True, slots=True)
class Decision:
    """A condition on the input's sizes, and where in the author's code it stands."""

    where: str
    condition: Any  # a sympy expression
    sizes: tuple[Any, Any, Any]  # the symbols of batch, height and width in it

    def takes(self, n: int, h: int, w: int) -> bool:
        """Whether the condition holds at that size; False where that cannot be told."""
        values = dict(zip(self.sizes, (n, h, w), strict=True))
        return bool(self.condition.subs(values) == True)  # noqa: E712  # a sympy truth is no bool

    def __str__(self) -> str:
        said = str(self.condition)
        for symbol, name in zip(self.sizes, ("batch", "height", "width"), strict=True):
            said = said.replace(str(symbol), name)
        return f"{self.where}: {said}"


@dataclass(slots=True)
class Watch:
    """Places in the author's code, in the order met.

    conditions: where something is decided by a size, and what
    numbers: where a size became a plain number
    """

    conditions: list[tuple[str, Any]] = field(default_factory=list)
    numbers: list[str] = field(default_factory=list)

    def decisions(self, pixels: torch.Tensor) -> list[Decision]:
        """In terms of the sizes of `pixels`, the symbolic input (n, h, w, c)."""
        sides: list[Any] = list(pixels.shape[:3])
        n, h, w = (side.node.expr for side in sides)
        return [
            Decision(where, condition, (n, h, w))
            for where, condition in dict.fromkeys(self.conditions)
            if condition.free_symbols & {n, h, w}
        ]


@contextmanager
def watched() -> Iterator[Watch]:
    """Note what the code run meanwhile decides by symbolic sizes."""
    watch = Watch()
    plain_bool: Any = torch.SymBool.__bool__
    plain_int: Any = torch.SymInt.__int__

    def decide(condition: torch.SymBool) -> bool:
        caller = sys._getframe(1)
        if caller.f_code.co_name == "__bool__" and caller.f_back is not None:
            caller = caller.f_back  # `if height % 2:` comes through SymInt.__bool__
        if theirs(caller.f_code.co_filename):
            watch.conditions.append((_place(caller), condition.node.expr))
        answer: bool = plain_bool(condition)
        return answer

    def fix(size: torch.SymInt) -> int:
        caller = sys._getframe(1)
        if theirs(caller.f_code.co_filename) and size.node.expr.free_symbols:
            watch.numbers.append(_place(caller))
        number: int = plain_int(size)
        return number

    patched: list[tuple[Any, str, Any, Any]] = [
        (torch.SymBool, "__bool__", plain_bool, decide),
        (torch.SymInt, "__int__", plain_int, fix),
        (torch.SymInt, "__index__", torch.SymInt.__index__, fix),
    ]
    for kind, name, _, ours in patched:
        setattr(kind, name, ours)
    try:
        yield watch
    finally:
        for kind, name, plain, _ in patched:
            setattr(kind, name, plain)


def _place(frame: FrameType) -> str:
    return f"{Path(frame.f_code.co_filename).name}, line {frame.f_lineno}"
