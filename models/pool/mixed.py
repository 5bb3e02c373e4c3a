"""Mixed max-average pooling."""

import torch
from torch import Tensor, nn

from models.pool.global_avg import GlobalAvgPool
from models.pool.global_max import GlobalMaxPool


class MixedPool(nn.Module):
    """Maximum and average of every channel, in a learnable proportion.

    y[c] = a·max(x[c]) + (1 - a)·mean(x[c]); (n, c, h, w) to (n, c, 1, 1).
    Source: Lee, Gallagher, Tu, "Generalizing Pooling Functions in Convolutional Neural Networks",
    AISTATS 2016, section 3.1, with the whole image as the region.
    Good for: images of mixed scale; with little training it finds its own proportion.
    """

    def __init__(self, alpha: float = 0.5) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.tensor(float(alpha)))
        self._highest, self._average = GlobalMaxPool(), GlobalAvgPool()

    def extra_repr(self) -> str:
        return f"alpha={self.alpha.item():g}"

    def forward(self, x: Tensor) -> Tensor:
        highest, average = self._highest(x), self._average(x)  # (n, c, 1, 1)
        mixed: Tensor = average + self.alpha * (highest - average)
        return mixed

    def maps(self, x: Tensor) -> list[Tensor]:
        """Those of the maximum and of the average, in the same proportion."""
        (highest,), (average,) = self._highest.maps(x), self._average.maps(x)
        return [average + self.alpha * (highest - average)]
