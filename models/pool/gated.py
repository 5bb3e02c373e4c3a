"""Gated max-average pooling."""

import torch
from torch import Tensor, nn

from models.pool.global_avg import GlobalAvgPool
from models.pool.global_max import GlobalMaxPool


class GatedPool(nn.Module):
    """Maximum and average of every channel, in a proportion that the image itself decides.

    y[c] = g·max(x[c]) + (1 - g)·mean(x[c]) with g = sigmoid(weight[c]·mean(x[c]) + bias[c]);
    (n, c, h, w) to (n, c, 1, 1). Untrained, g is 1/2.
    Source: Lee, Gallagher, Tu, "Generalizing Pooling Functions in Convolutional Neural Networks",
    AISTATS 2016, section 3.2. There the gate is sigmoid(wᵀx) over a window of fixed size; over an
    image of any size w can only be the same at every place, which makes wᵀx a mean.
    Good for: what MixedPool is good for, when images differ in it.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self._highest, self._average = GlobalMaxPool(), GlobalAvgPool()

    def forward(self, x: Tensor) -> Tensor:
        highest, average = self._highest(x), self._average(x)  # (n, c, 1, 1)
        gated: Tensor = average + self._gate(average) * (highest - average)
        return gated

    def maps(self, x: Tensor) -> list[Tensor]:
        """Those of the maximum and of the average, in the same proportion."""
        (highest,), (average,) = self._highest.maps(x), self._average.maps(x)
        return [average + self._gate(self._average(x)) * (highest - average)]

    def _gate(self, average: Tensor) -> Tensor:
        weight, bias = self.weight[:, None, None], self.bias[:, None, None]  # (c, 1, 1)
        return torch.sigmoid(weight * average + bias)  # (n, c, 1, 1)
