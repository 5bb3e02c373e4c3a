"""How far an image reaches along an axis of a map, as a function of its own height or width.

Through a convolution or a pooling a side v becomes floor((v + …) / stride) + 1, upsampling makes
it k·v, padding up to a multiple ceil(v/s)·s: all of them, and whatever they make one after the
other, climb by the same `rise` each `period`. Such a staircase is known by its first steps, and two
are equal at every size if these are.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import gcd, lcm


@dataclass(frozen=True, slots=True)
class Window:
    """What a convolution or pooling does along one axis."""

    kernel: int
    stride: int
    dilation: int
    begin: int
    end: int

    @property
    def reach(self) -> int:
        """From a window's first place to its last."""
        return self.dilation * (self.kernel - 1)

    def ceiling(self) -> "Window":
        """The same in ceil_mode, as a window with more padding at the end.

        One more window may reach beyond the padding, but none may start in it.
        """
        return replace(self, end=min(self.end + self.stride - 1, self.reach))


@dataclass(frozen=True, slots=True)
class Level:
    """The side f(v) of every image, where f(unit·(i + k·steps)) = sides[i] + k·rise.

    source: names v, the (n,) sides that the chain starts from
    unit: what every v is a multiple of
    """

    source: str
    unit: int = 1
    sides: tuple[int, ...] = (0,)
    rise: int = 1

    @classmethod
    def start(cls, source: str, unit: int = 1) -> "Level":
        """The side of the image itself."""
        return cls(source, unit, (0,), unit)

    def __call__(self, step: int) -> int:
        """f(unit·step)."""
        times, index = divmod(step, len(self.sides))
        return self.sides[index] + times * self.rise

    def through(self, window: Window) -> "Level":
        """The level behind a window operator."""
        first_out = self + (window.begin + window.end - window.reach - 1)
        return first_out // window.stride + 1

    def __add__(self, other: "int | Level") -> "Level":
        if isinstance(other, int):
            return self._each(1, lambda step: self(step) + other)
        assert (self.source, self.unit) == (other.source, other.unit)
        count = lcm(len(self.sides), len(other.sides)) // len(self.sides)
        return self._each(count, lambda step: self(step) + other(step))

    def __mul__(self, factor: int) -> "Level":
        return self._each(1, lambda step: self(step) * factor)

    def __floordiv__(self, divisor: int) -> "Level":
        count = divisor // gcd(self.rise, divisor)
        return self._each(count, lambda step: self(step) // divisor)

    def __mod__(self, divisor: int) -> "Level":
        return self + (self // divisor) * -divisor

    @property
    def content(self) -> int:
        """The largest number that divides every side; 0 if all are 0."""
        return gcd(self.rise, *self.sides)

    @property
    def constant(self) -> int | None:
        """The side, if it is the same for all images."""
        return self.sides[0] if self.rise == 0 and len(self.sides) == 1 else None

    @property
    def climbs(self) -> bool:
        """Whether no larger image has a smaller side."""
        return all(self(step) <= self(step + 1) for step in range(len(self.sides)))

    def never_above(self, other: "Level") -> bool:
        """Whether f(v) ≤ g(v) for every v that there is."""
        assert (self.source, self.unit) == (other.source, other.unit)
        less = other + self * -1
        return less.rise >= 0 and all(less(step) >= 0 for step in range(1, len(less.sides) + 1))

    def line(self) -> tuple[int, int, int] | None:
        """(factor, offset, stride) such that f(v) = floor((factor·v + offset) / stride) + 1."""
        stride = self.unit * len(self.sides)
        ends = [stride * y - self.rise * self.unit * i for i, y in enumerate(self.sides)]
        offset = min(ends) - 1  # as far as it may go
        if offset < max(ends) - stride:
            return None
        shared = gcd(self.rise, stride)
        return self.rise // shared, offset // shared, stride // shared

    def _each(self, count: int, f: Callable[[int], int]) -> "Level":
        """f over `count` periods, which must suffice, as the shortest staircase."""
        length = count * len(self.sides)
        climb = [f(step + 1) - f(step) for step in range(length)]
        short = next(
            d
            for d in range(1, length + 1)
            if length % d == 0 and climb == climb[:d] * (length // d)
        )
        sides = tuple(f(step) for step in range(short))
        return Level(self.source, self.unit, sides, f(short) - f(0))
