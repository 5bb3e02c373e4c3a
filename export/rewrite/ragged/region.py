"""Where a tensor is valid: for each ragged axis, how far every image of the batch reaches.

Images of different sizes lie top-left aligned on one canvas. Through a convolution or a pooling a
valid side v becomes floor((v + begin + end - dilation·(kernel-1) - 1) / stride) + 1, and a chain
of such steps folds into one: floor((v + offset) / stride) + 1. Equal folds are equal regions, so
that a 3×3 convolution with padding 1 and a 1×1 shortcut, both of stride 2, are seen to agree.
"""

from dataclasses import dataclass, replace
from typing import Self


@dataclass(frozen=True, slots=True)
class Level:
    """The valid side floor((source + offset) / stride) + 1 of every image.

    source: names the (n,) sides that the chain starts from
    """

    source: str
    offset: int = -1
    stride: int = 1

    def through(self, window: "Window") -> Self:
        """The level behind a window operator (without ceil_mode)."""
        reach = window.begin + window.end - window.dilation * (window.kernel - 1) - 1
        offset = self.offset + self.stride * (1 + reach)
        return replace(self, offset=offset, stride=self.stride * window.stride)


@dataclass(frozen=True, slots=True)
class Window:
    """What a convolution or pooling does along one axis."""

    kernel: int
    stride: int
    dilation: int
    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class Region:
    """Which axes of a tensor are ragged, and what is known of its values.

    zero: all values outside are 0
    nonnegative: no value inside is negative
    finite: no value outside is infinite or NaN
    """

    levels: tuple[tuple[int, Level], ...]  # by axis, ascending
    zero: bool = False
    nonnegative: bool = False
    finite: bool = True

    @classmethod
    def of(
        cls,
        levels: dict[int, Level],
        *,
        zero: bool = False,
        nonnegative: bool = False,
        finite: bool = True,
    ) -> "Region":
        """A region from a table of axes."""
        return cls(
            tuple(sorted(levels.items(), key=lambda item: item[0])), zero, nonnegative, finite
        )

    @property
    def axes(self) -> dict[int, Level]:
        """Levels by axis."""
        return dict(self.levels)
