"""Stochastic pooling."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.pool.powers import TINY


class StochasticPool(nn.Module):
    """Pick one response of every channel at random, strong ones more often.

    Training: y[c] = x[c, i, j] with probability x[c, i, j] / sum of x[c]. Inference: their mean,
    y[c] = sum of x[c]² / sum of x[c]. Negative responses count as 0; where all are 0, so is y.
    (n, c, h, w) to (n, c, 1, 1), the whole image being the region.
    Source: Zeiler, Fergus, "Stochastic Pooling for Regularization of Deep Convolutional Neural
    Networks", ICLR 2013. Good for: little training data; it regularises without a parameter.
    """

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(x)
        if self.training:
            return drawn(x.flatten(2)).unsqueeze(3)  # (n, c, 1, 1)
        mean = x.mean((2, 3), keepdim=True)  # (n, c, 1, 1)
        return (x * x).mean((2, 3), keepdim=True) / mean.clamp(min=TINY)

    def maps(self, x: Tensor) -> list[Tensor]:
        """Each response times how probable it is, as at inference."""
        x = F.relu(x)
        return [x * (x / x.mean((2, 3), keepdim=True).clamp(min=TINY))]


def drawn(x: Tensor) -> Tensor:
    """One of the last axis's values, none below 0, as probable as it is large: (…, k) to (…, 1)."""
    flat = x.reshape(-1, x.shape[-1])  # (rows, k)
    nothing = flat.sum(1, keepdim=True) == 0
    chosen = torch.multinomial(flat.detach() + nothing, 1)  # (rows, 1)
    return flat.gather(1, chosen).reshape(*x.shape[:-1], 1)
