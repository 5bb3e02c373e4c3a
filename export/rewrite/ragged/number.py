"""Whole numbers that depend on the canvas's size, as products of staircases."""

from dataclasses import dataclass
from math import prod

from export.rewrite.ragged.staircase import Level


@dataclass(frozen=True, slots=True)
class Number:
    """factor · images^(0 or 1) · the product of levels, none of which has a factor of its own."""

    factor: int = 1
    images: int = 0
    levels: tuple[Level, ...] = ()

    @classmethod
    def of(cls, factor: int, *levels: Level, images: int = 0) -> "Number":
        """The product in its normal form."""
        contents = [level.content for level in levels]
        factor *= prod(contents)
        if factor == 0:
            return cls(0)
        reduced = [level // content for level, content in zip(levels, contents, strict=True)]
        fixed = prod(level.constant for level in reduced if level.constant is not None)
        climbing = [level for level in reduced if level.constant is None]
        climbing.sort(key=lambda level: (level.source, level.rise, level.sides))
        return cls(factor * fixed, images, tuple(climbing))

    @property
    def level(self) -> Level | None:
        """The number as one staircase, if it is one."""
        if self.images or len(self.levels) != 1:
            return None
        return self.levels[0] * self.factor

    @property
    def constant(self) -> int | None:
        """The number, if it is the same for all canvases."""
        return None if self.images or self.levels else self.factor

    def __mul__(self, other: "Number") -> "Number":
        images = self.images + other.images
        return Number.of(self.factor * other.factor, *self.levels, *other.levels, images=images)

    def __add__(self, other: "Number") -> "Number":
        a, b = self._summand(), other._summand()
        if isinstance(a, int):
            return Number(a + b) if isinstance(b, int) else Number.of(1, b + a)
        if isinstance(b, Level) and a.source != b.source:
            raise ValueError("a sum of height and width")
        return Number.of(1, a + b)

    def __sub__(self, other: "Number") -> "Number":
        return self + other * Number(-1)

    def __neg__(self) -> "Number":
        return self * Number(-1)

    def __floordiv__(self, other: "Number") -> "Number":
        divisor = other.constant
        if divisor is None:
            return self.quotient(other)
        if divisor <= 0:
            raise ValueError("divided by less than 1")
        if self.factor % divisor == 0:
            return Number(self.factor // divisor, self.images, self.levels)
        a = self._summand()
        if isinstance(a, Level):
            if a.rise < 0 or any(a(step) < 0 for step in range(1, len(a.sides) + 1)):
                raise ValueError("ONNX rounds less than 0 up")
            return Number.of(1, a // divisor)
        if a < 0:
            raise ValueError("ONNX rounds less than 0 up")
        return Number(a // divisor)

    def __mod__(self, other: "Number") -> "Number":
        divisor = other.constant
        if divisor is None:
            self.quotient(other)  # or ValueError
            return Number(0)
        a = self._summand()
        if divisor <= 0:
            raise ValueError("divided by less than 1")
        return Number(a % divisor) if isinstance(a, int) else Number.of(1, a % divisor)

    def quotient(self, other: "Number") -> "Number":
        """The exact quotient; raises ValueError where it is not known to be whole."""
        levels = list(self.levels)
        for level in other.levels:
            if level not in levels:
                raise ValueError("no whole quotient")
            levels.remove(level)
        if other.factor == 0 or self.factor % other.factor or self.images < other.images:
            raise ValueError("no whole quotient")
        return Number(self.factor // other.factor, self.images - other.images, tuple(levels))

    def _summand(self) -> int | Level:
        constant, level = self.constant, self.level
        if constant is not None:
            return constant
        if level is None:
            raise ValueError("a product of several sides")
        return level
