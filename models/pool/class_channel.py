"""One map for each class, then pooled: the head of Network In Network."""

from typing import Literal

from torch import Tensor, nn

from models.pool.global_avg import GlobalAvgPool
from models.pool.global_max import GlobalMaxPool


class ClassChannelPool(nn.Module):
    """A 1×1 convolution to one map for each class, then global pooling: nothing follows it.

    y[k] = mean (or maximum) over (i, j) of (W x[:, i, j] + b)[k]; (n, c, h, w) to (n, k, 1, 1),
    which are the logits. With the average it equals a linear layer behind global average pooling.
    Source: Lin, Chen, Yan, "Network In Network", 2013; with the maximum Oquab et al., CVPR 2015.
    Good for: maps that say what is where; with the maximum, small objects.
    """

    def __init__(self, channels: int, classes: int, kind: Literal["avg", "max"] = "avg") -> None:
        super().__init__()
        if kind not in ("avg", "max"):
            raise ValueError(f"kind={kind!r}: choose avg or max")
        self.kind = kind
        self.conv = nn.Conv2d(channels, classes, kernel_size=1)
        self._pool = GlobalAvgPool() if kind == "avg" else GlobalMaxPool()

    def extra_repr(self) -> str:
        return f"kind={self.kind}"

    def forward(self, x: Tensor) -> Tensor:
        pooled: Tensor = self._pool(self.conv(x))  # (n, k, 1, 1)
        return pooled

    def maps(self, x: Tensor) -> list[Tensor]:
        """The class maps themselves; of the maximum, where it is."""
        return self._pool.maps(self.conv(x))
