"""Where a tensor is valid: for each ragged axis, how far every image of the batch reaches.

Images of different sizes lie top-left aligned on one canvas. How far an image reaches along an axis
of a map is a staircase of its own height or width (staircase.py), and equal staircases are equal
regions: so a 3×3 convolution with padding 1 and a 1×1 shortcut, both of stride 2, are seen to
agree.
"""

from dataclasses import dataclass
from typing import TypeAlias

from export.rewrite.ragged.staircase import Level


@dataclass(frozen=True, slots=True)
class Merged:
    """Several axes made one, row by row: ragged ones and fixed ones."""

    parts: tuple[int | Level, ...]


Extent: TypeAlias = Level | Merged


@dataclass(frozen=True, slots=True)
class Region:
    """Which axes of a tensor are ragged, and what is known of its values.

    zero: all values outside are 0
    nonnegative: no value inside is negative
    finite: no value outside is infinite or NaN
    """

    levels: tuple[tuple[int, Extent], ...]  # by axis, ascending
    zero: bool = False
    nonnegative: bool = False
    finite: bool = True

    @classmethod
    def of(
        cls,
        levels: dict[int, Extent],
        *,
        zero: bool = False,
        nonnegative: bool = False,
        finite: bool = True,
    ) -> "Region":
        """A region from a table of axes."""
        return cls(
            tuple(sorted(levels.items(), key=lambda item: item[0])), zero, nonnegative, finite
        )

    def moved(self, levels: dict[int, Extent]) -> "Region":
        """The same values along other axes."""
        return Region.of(levels, zero=self.zero, nonnegative=self.nonnegative, finite=self.finite)

    @property
    def axes(self) -> dict[int, Extent]:
        """Extents by axis."""
        return dict(self.levels)
