"""What a forward decides by the size of its input, since torch.export keeps one of the answers.

`if x.shape[2] > 1000:` becomes, in the exported program, whatever the example made of it, for every
size and without a word. While `watched` is active, each such place in the author's code is noted;
the grid of sizes then has one at which the answer is the other one, so that verification shows
whether it matters. Where a size becomes a plain number, nothing can be kept dynamic: those
places are noted too. Imports torch only.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

import sympy
import torch

from export.diagnosis import theirs
from export.errors import CaptureError
from export.shapes import IN_PYTHON

_MANY_NUMBERS = 12
_MOST_RUNS = 12  # of one network, each as long as an export

Size = tuple[int, int, int]  # batch, height, width


@dataclass(frozen=True, slots=True)
class Decision:
    """A condition on the input's sizes that forward came to, and where in the author's code.

    symbols: of batch, height and width in the condition
    example: the size that forward was given then
    before: what it had decided on the way there
    """

    where: str
    condition: Any  # a sympy expression
    symbols: tuple[Any, Any, Any]
    example: Size
    before: tuple["Decision", ...] = ()

    def takes(self, n: int, h: int, w: int) -> bool:
        """Whether the condition holds at that size; False where that cannot be told."""
        return _compiled(self.condition, self.symbols)(n, h, w)

    def otherwise(self, n: int, h: int, w: int) -> bool:
        """Whether forward comes there at that size, and finds the other answer."""
        usual = self.takes(*self.example)
        return self.takes(n, h, w) != usual and all(
            decision.takes(n, h, w) == decision.takes(*self.example) for decision in self.before
        )

    def numbers(self) -> set[int]:
        """The numbers in this condition and those before, and their products: sides of interest."""
        conditions = [self.condition, *(decision.condition for decision in self.before)]
        own = {int(n) for condition in conditions for n in condition.atoms(sympy.Integer)}
        own = {n for n in own if n > 1}
        return own | {a * b for a in own for b in own} if len(own) < _MANY_NUMBERS else own

    def branch(self) -> tuple[tuple[str, bool], ...]:
        """The way to this place: the same in runs that decided the same before."""
        way = [(str(decision), decision.takes(*self.example)) for decision in self.before]
        return (*way, (str(self), True))

    def __str__(self) -> str:
        said = str(self.condition)
        for symbol, name in zip(self.symbols, ("batch", "height", "width"), strict=True):
            said = said.replace(str(symbol), name)
        return f"{self.where}: {said}"


@cache
def _compiled(condition: Any, symbols: tuple[Any, Any, Any]) -> Callable[[int, int, int], bool]:
    function = sympy.lambdify(symbols, condition, modules=[IN_PYTHON])

    def holds(n: int, h: int, w: int) -> bool:
        try:
            return bool(function(n, h, w))
        except (ArithmeticError, NameError, TypeError):  # what cannot be reckoned, nobody is told
            return False

    return holds


def explored(
    trace: Callable[[Size], list[Decision]],
    path: list[Decision],
    there: Callable[[Decision], Size | None],
) -> list[Decision]:
    """`path`, and what forward decides where it took another way: "and", "else", nested ifs.

    trace: runs forward at a size and gives what it decides; there: a size at which a decision is
    the other one. After so many runs no more ways are looked for.
    """
    found, known = list(path), {decision.branch() for decision in path}
    tried: set[Size] = set()
    for decision in found:  # grows meanwhile
        size = there(decision)
        if size is None or size in tried or len(tried) == _MOST_RUNS:
            continue
        tried.add(size)
        try:
            further = trace(size)
        except CaptureError:
            continue  # not the way that is exported: the run at this size will show whether it can
        for new in further:
            if new.branch() not in known:
                known.add(new.branch())
                found.append(new)
    return found


@dataclass(slots=True)
class Watch:
    """Places in the author's code, in the order met.

    conditions: where something is decided by a size, and what
    numbers: where a size became a plain number
    """

    conditions: list[tuple[str, Any]] = field(default_factory=list)
    numbers: list[str] = field(default_factory=list)

    def decisions(self, pixels: torch.Tensor, example: Size) -> list[Decision]:
        """In terms of the sizes of `pixels`, the symbolic input (n, h, w, c), in their order."""
        sides: list[Any] = list(pixels.shape[:3])
        n, h, w = (side.node.expr for side in sides)
        found: list[Decision] = []
        for where, condition in dict.fromkeys(self.conditions):
            if condition.free_symbols & {n, h, w}:
                found.append(Decision(where, condition, (n, h, w), example, tuple(found)))
        return found


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
