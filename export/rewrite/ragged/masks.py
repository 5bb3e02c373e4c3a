"""Masks over the valid region, made once for each level and used wherever something must go."""

from functools import reduce

import numpy as np
import onnx_ir as ir

from export.rewrite.builder import Builder
from export.rewrite.ragged.errors import Unsupported
from export.rewrite.ragged.extents import Extents, Side
from export.rewrite.ragged.region import Extent, Merged, Region
from export.rewrite.ragged.staircase import Level

_SPACE = [2, 3]
_BLOCK = 8  # fewer channels than this are not blocked anyway
LOWEST = float(np.finfo(np.float32).min)


class Masks(Extents):
    """The masks made so far.

    placed: how often a tensor was masked
    """

    def __init__(self, sources: dict[str, Side]) -> None:
        super().__init__(sources)
        self.placed = 0
        self._inside: dict[tuple[object, ...], ir.Value] = {}
        self._filled: dict[tuple[ir.Value, float], ir.Value] = {}

    def inside(self, build: Builder, x: ir.Value, axes: tuple[int, ...] | None = None) -> ir.Value:
        """bool, broadcastable to `x`: True inside the region, along `axes` (default: all)."""
        region, rank = self.regions[x], _rank(x)
        levels = [item for item in region.levels if axes is None or item[0] in axes]
        key = (tuple(levels), rank)
        if key not in self._inside:
            parts = [self._along(build, x, axis, level, rank) for axis, level in levels]
            whole = parts[0]
            for part in parts[1:]:
                whole = build("And", whole, part)
            self._inside[key] = whole
        return self._inside[key]

    def _along(self, build: Builder, x: ir.Value, axis: int, extent: Extent, rank: int) -> ir.Value:
        key = (extent, axis, rank)
        if key not in self._inside:
            if isinstance(extent, Merged):
                inside = self._merged(build, extent)  # (n, places)
                shape = [0] + [1] * (axis - 1) + [-1] + [1] * (rank - axis - 1)
                self._inside[key] = build.reshaped(inside, shape)
            else:
                positions = self.positions_of(build, extent)  # (side,)
                positions = build.reshaped(positions, [-1] + [1] * (rank - axis - 1))
                valid = build.reshaped(self.side(build, extent).valid, [-1] + [1] * (rank - 1))
                self._inside[key] = build("Less", positions, valid)  # (n, 1.., side, 1..)
        return self._inside[key]

    def _merged(self, build: Builder, extent: Merged) -> ir.Value:
        """bool (n, places): which places of axes that were made one lie inside."""
        key = ("merged", extent)
        if key not in self._inside:
            rank = 1 + len(extent.parts)
            masks = []
            for axis, part in enumerate(extent.parts, 1):
                if isinstance(part, Level):
                    positions = build.reshaped(
                        self.positions_of(build, part), [-1] + [1] * (rank - axis - 1)
                    )
                    valid = build.reshaped(self.side(build, part).valid, [-1] + [1] * (rank - 1))
                    masks.append(build("Less", positions, valid))
                else:
                    shape = [part if a == axis else 1 for a in range(rank)]
                    masks.append(build.constant(np.ones(shape, bool)))
            whole = reduce(lambda mask, other: build("And", mask, other), masks)
            self._inside[key] = build.reshaped(whole, [0, -1])
        return self._inside[key]

    def weights(self, build: Builder, x: ir.Value) -> ir.Value:
        """float, broadcastable to `x`: 1 inside the region, 0 outside.

        For a map it has all channels, which a 1×1 convolution of ones gives it, and the very
        dimensions of `x`: then ONNX Runtime multiplies in its blocked layout (NCHWc), and the map
        is not reordered before and after (measured: 18 reorders saved on EfficientNet-Lite0).
        """
        levels, shape = self.regions[x].levels, x.shape
        key = ("float", levels, _rank(x))
        if key not in self._inside:
            self._inside[key] = build("Cast", self.inside(build, x), to=ir.DataType.FLOAT)
        narrow = self._inside[key]
        if shape is None or [axis for axis, _ in levels] != _SPACE or len(shape) != 4:
            return narrow
        channels = shape[1]
        if not isinstance(channels, int) or channels < _BLOCK:
            return narrow
        key = ("wide", levels, channels)
        if key not in self._inside:
            ones = build.constant(np.ones((channels, 1, 1, 1), np.float32))
            wide = build("Conv", narrow, ones, kernel_shape=[1, 1])  # (n, c, h, w)
            wide.shape, wide.type = shape, x.type
            self._inside[key] = wide
        return self._inside[key]

    def zeroed(self, build: Builder, x: ir.Value) -> ir.Value:
        """`x` with zeros outside its region."""
        region = self.regions.get(x)
        if region is None or region.zero:
            return x
        key = (x, 0.0)
        _check_float(x)
        if key not in self._filled:
            self.placed += 1
            if region.finite:
                clean = build("Mul", x, self.weights(build, x))
            else:  # 0 · NaN is NaN
                clean = build("Where", self.inside(build, x), x, build.float(0.0))
            clean.shape, clean.type = x.shape, x.type
            self._filled[key] = clean
            self.regions[clean] = Region(region.levels, True, region.nonnegative, True)
        return self._filled[key]

    def lowered(self, build: Builder, x: ir.Value, axes: tuple[int, ...] | None = None) -> ir.Value:
        """`x` with something outside its region that no maximum inside can be smaller than."""
        region = self.regions.get(x)
        if region is None:
            return x
        if region.nonnegative and axes is None:
            return self.zeroed(build, x)
        return self.filled(build, x, LOWEST, axes)

    def filled(
        self, build: Builder, x: ir.Value, value: float, axes: tuple[int, ...] | None = None
    ) -> ir.Value:
        """`x` with `value` outside its region along `axes` (default: all)."""
        _check_float(x)
        self.placed += 1
        filled = build("Where", self.inside(build, x, axes), x, build.float(value))
        filled.shape, filled.type = x.shape, x.type
        return filled


def _check_float(x: ir.Value) -> None:
    if x.dtype not in (None, ir.DataType.FLOAT):
        raise Unsupported(x.producer(), f"its values are {x.dtype}; only float32 can be masked")


def _rank(x: ir.Value) -> int:
    if x.shape is None:
        raise Unsupported(x.producer(), "the number of its dimensions is not known")
    return len(x.shape)
