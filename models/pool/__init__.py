"""Pooling layers, one a file, and the table that names them.

Every one takes features (n, c, h, w) of any h and w and gives (n, c, oh, ow).
"""

from collections.abc import Callable

from torch import nn

from models.pool.adaptive_avg import AdaptiveAvgPool
from models.pool.adaptive_max import AdaptiveMaxPool
from models.pool.global_avg import GlobalAvgPool
from models.pool.global_max import GlobalMaxPool

POOLS: dict[str, Callable[..., nn.Module]] = {
    "adaptive_avg": AdaptiveAvgPool,
    "adaptive_max": AdaptiveMaxPool,
    "global_avg": GlobalAvgPool,
    "global_max": GlobalMaxPool,
}
