"""Generalised-mean pooling."""

from math import inf

import torch
from torch import Tensor, nn

from models.pool.powers import power_mean


class GeMPool(nn.Module):
    """The generalised mean of every channel: between average (p = 1) and maximum (p to infinity).

    y[c] = (mean over (i, j) of max(x[c, i, j], eps)^p)^(1/p), p learnable;
    (n, c, h, w) to (n, c, 1, 1). Values below eps count as eps.
    Source: Radenović, Tolias, Chum, "Fine-tuning CNN image retrieval with no human annotation",
    TPAMI 2018. Good for: images larger than those of the training, and retrieval.
    """

    def __init__(self, p: float = 3.0, eps: float = 1e-6) -> None:
        super().__init__()
        if not (0 < p < inf and 0 < eps < inf):
            raise ValueError(f"p={p}, eps={eps}: both must be above 0, and finite")
        self.p = nn.Parameter(torch.tensor(float(p)))
        self.eps = eps

    def extra_repr(self) -> str:
        return f"p={self.p.item():g}"

    def forward(self, x: Tensor) -> Tensor:
        return power_mean(x.clamp(min=self.eps), self.p)[0]  # (n, c, 1, 1)

    def maps(self, x: Tensor) -> list[Tensor]:
        """The pooled value, in proportion to each place's power."""
        return [power_mean(x.clamp(min=self.eps), self.p)[1]]
