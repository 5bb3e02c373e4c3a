"""Pooling layers, one a file, and the table that names them.

Every one takes features (n, c, h, w) of any h and w. Heads make them a fixed number of cells,
(n, c, oh, ow), and say where in the image each came from; the others (windows, strided
convolution) give a smaller map, which a head must follow before a classifier.
"""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from models.pool.adaptive_avg import AdaptiveAvgPool
from models.pool.adaptive_max import AdaptiveMaxPool
from models.pool.attention import AttentionPool
from models.pool.avg_window import AvgWindowPool
from models.pool.class_channel import ClassChannelPool
from models.pool.fractional_max import FractionalMaxPool
from models.pool.gated import GatedPool
from models.pool.gem import GeMPool
from models.pool.global_avg import GlobalAvgPool
from models.pool.global_max import GlobalMaxPool
from models.pool.log_sum_exp import LogSumExpPool
from models.pool.lp import LpPool
from models.pool.max_window import MaxWindowPool
from models.pool.mixed import MixedPool
from models.pool.spp import SpatialPyramidPool
from models.pool.stochastic import StochasticPool
from models.pool.stochastic_window import StochasticWindowPool
from models.pool.strided_conv import StridedConvPool

POOLS: dict[str, Callable[..., nn.Module]] = {
    "adaptive_avg": AdaptiveAvgPool,
    "adaptive_max": AdaptiveMaxPool,
    "attention": AttentionPool,
    "avg": GlobalAvgPool,
    "avg_window": AvgWindowPool,
    "class_channel": ClassChannelPool,
    "fractional_max": FractionalMaxPool,
    "gated": GatedPool,
    "gem": GeMPool,
    "log_sum_exp": LogSumExpPool,
    "lp": LpPool,
    "max": GlobalMaxPool,
    "max_window": MaxWindowPool,
    "mixed": MixedPool,
    "spp": SpatialPyramidPool,
    "stochastic": StochasticPool,
    "stochastic_window": StochasticWindowPool,
    "strided_conv": StridedConvPool,
}


@runtime_checkable
class Head(Protocol):
    """A pooling to a fixed number of cells, which can say where they come from."""

    def __call__(self, x: Tensor) -> Tensor:
        """Features (n, c, h, w) to (n, c', oh, ow)."""

    def maps(self, x: Tensor) -> list[Tensor]:
        """For each of the oh·ow cells a map (n, c', h, w) whose mean over space is that cell."""
