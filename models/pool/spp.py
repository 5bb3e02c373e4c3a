"""Spatial pyramid pooling."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from models.pool.adaptive_avg import AdaptiveAvgPool
from models.pool.adaptive_max import AdaptiveMaxPool


class SpatialPyramidPool(nn.Module):
    """Pool an image into grids of several sizes, coarse to fine, and join their cells.

    levels (1, 2, 4) give 1 + 4 + 16 = 21 cells, each pooled by its average or maximum;
    (n, c, h, w) to (n, c, 21, 1), cells in the order of the levels, row by row.
    Source: He et al., "Spatial Pyramid Pooling in Deep Convolutional Networks", ECCV 2014.
    Good for: where things are, at several scales, without a fixed input size.
    """

    def __init__(
        self, levels: Sequence[int] = (1, 2, 4), kind: Literal["avg", "max"] = "max"
    ) -> None:
        super().__init__()
        if not levels or any(level < 1 for level in levels):
            raise ValueError(f"levels={levels}: give cells a side for each level, such as (1, 2)")
        if kind not in ("avg", "max"):
            raise ValueError(f"kind={kind!r}: choose avg or max")
        pool = AdaptiveAvgPool if kind == "avg" else AdaptiveMaxPool
        self.kind = kind
        self.levels = nn.ModuleList(pool((level, level)) for level in levels)

    def extra_repr(self) -> str:
        return f"kind={self.kind}"

    def forward(self, x: Tensor) -> Tensor:
        grids = [level(x).flatten(2) for level in self.levels]  # each (n, c, level²)
        return torch.cat(grids, 2).unsqueeze(3)  # (n, c, cells, 1)

    def maps(self, x: Tensor) -> list[Tensor]:
        """Those of its cells."""
        grids: list[AdaptiveAvgPool | AdaptiveMaxPool] = list(self.levels)  # type: ignore[arg-type]
        return [cell for level in grids for cell in level.maps(x)]
