"""How far each image reaches in every tensor of a graph, and the graph values that say so."""

from dataclasses import dataclass
from functools import reduce
from math import prod

import onnx_ir as ir

from export.rewrite.builder import Builder
from export.rewrite.ragged.counts import Counts
from export.rewrite.ragged.errors import Unsupported
from export.rewrite.ragged.number import Number
from export.rewrite.ragged.region import Merged, Region
from export.rewrite.ragged.staircase import Level


@dataclass(frozen=True, slots=True)
class Side:
    """How far each image reaches, int64 (n,), and how far the canvas does, int64 (1,)."""

    valid: ir.Value
    canvas: ir.Value


class Extents:
    """The regions found so far, and the graph values that describe them.

    regions: by tensor; a tensor that is not in it has no ragged axis
    counts: whole numbers that depend on the canvas
    """

    def __init__(self, sources: dict[str, Side]) -> None:
        self.regions: dict[ir.Value, Region] = {}
        self.counts = Counts()
        self._sources = sources
        self._sides: dict[Level, Side] = {}
        self._positions: dict[Level, ir.Value] = {}

    def subject(self, node: ir.Node) -> ir.Value:
        """The node's first input; raises Unsupported unless that is what is ragged."""
        x = node.inputs[0]
        if x is None or x not in self.regions:
            raise Unsupported(node, "its parameters depend on the image")
        return x

    def side(self, build: Builder, level: Level) -> Side:
        """The valid sides and the canvas's side at a level."""
        if level not in self._sides:
            source = self._sources[level.source]
            self._sides[level] = Side(
                _through(build, source.valid, level), _through(build, source.canvas, level)
            )
        return self._sides[level]

    def positions(self, build: Builder, x: ir.Value, axis: int) -> ir.Value:
        """0, 1, 2, … along an axis of the canvas: int64 (side,).

        Computed from the input's size, never from a map's Shape: that would make ONNX Runtime
        leave its blocked layout, and copy the map, to look at it.
        """
        region = self.regions.get(x)
        if region is None or axis not in region.axes:
            return build.positions(x, axis)
        return self.positions_of(build, self.level(x, axis))

    def positions_of(self, build: Builder, level: Level) -> ir.Value:
        """0, 1, 2, … along a canvas at a level: int64 (side,)."""
        if level not in self._positions:
            side = build("Squeeze", self.side(build, level).canvas)
            self._positions[level] = build("Range", build.scalar(0), side, build.scalar(1))
        return self._positions[level]

    def extent(self, build: Builder, x: ir.Value, axis: int) -> ir.Value:
        """How far `x` reaches along an axis, int64: (n,) where it is ragged, (1,) where not."""
        region = self.regions.get(x)
        if region is None or axis not in region.axes:
            return build("Shape", x, start=axis, end=axis + 1)
        extent = region.axes[axis]
        parts = (extent,) if isinstance(extent, Level) else extent.parts
        sides = [
            self.side(build, part).valid if isinstance(part, Level) else build.ints([part])
            for part in parts
        ]
        return reduce(lambda side, other: build("Mul", side, other), sides)

    def level(self, x: ir.Value, axis: int) -> Level:
        """The level of a ragged axis; raises Unsupported where several were made one."""
        extent = self.regions[x].axes[axis]
        if isinstance(extent, Merged):
            raise Unsupported(next(iter(x.uses())).node, "it takes merged axes for one")
        return extent

    def sides_of(self, x: ir.Value) -> list[Number | None]:
        """The shape of a tensor: a number where it is known."""
        region = self.regions.get(x)
        axes = {} if region is None else region.axes
        numbers: list[Number | None] = []
        for axis, side in enumerate(x.shape or ()):
            extent = axes.get(axis)
            parts = extent.parts if isinstance(extent, Merged) else (extent,)
            if extent is not None:
                levels = [part for part in parts if isinstance(part, Level)]
                fixed = prod(part for part in parts if isinstance(part, int))
                numbers.append(Number.of(fixed, *levels))
            elif isinstance(side, int):
                numbers.append(Number(side))
            else:
                batch = axis == 0 and (region is not None or side.value == "batch")
                numbers.append(Number(images=1) if batch else None)
        return numbers


def _through(build: Builder, side: ir.Value, level: Level) -> ir.Value:
    """The staircase, step by step of the side it starts from."""
    line = level.line()
    if line is None:
        period = level.unit * len(level.sides)
        times = build("Div", side, build.scalar(period))
        index = build("Div", build("Mod", side, build.scalar(period)), build.scalar(level.unit))
        step = build("Gather", build.ints(level.sides), index)
        return build("Add", build("Mul", times, build.scalar(level.rise)), step)
    factor, offset, stride = line
    if factor != 1:
        side = build("Mul", side, build.scalar(factor))
    if stride == 1:
        offset += 1
    if offset:
        side = build("Add", side, build.scalar(offset))
    if stride != 1:
        side = build("Div", side, build.scalar(stride))
        side = build("Add", side, build.scalar(1))
    return side
