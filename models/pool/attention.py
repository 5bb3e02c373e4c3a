"""Attention pooling."""

import torch
from torch import Tensor, nn


class AttentionPool(nn.Module):
    """A weighted average whose weights the image decides: a softmax over all its places.

    a[k] = softmax over (i, j) of score(x)[k, i, j], score a 1×1 convolution to one map for each
    head k; y[c] = sum over (i, j) of a[k(c), i, j]·x[c, i, j], heads sharing out the channels in
    order. (n, c, h, w) to (n, c, 1, 1). Untrained it is the average.
    Source: Ilse, Tomczak, Welling, "Attention-based Deep Multiple Instance Learning", ICML 2018;
    heads as in Vaswani et al., 2017.
    Good for: small objects before large backgrounds, after training.
    """

    head_of: Tensor

    def __init__(self, channels: int, heads: int = 1) -> None:
        super().__init__()
        if heads < 1 or channels % heads:
            raise ValueError(f"heads={heads}: must divide the {channels} channels")
        self.score = nn.Conv2d(channels, heads, kernel_size=1)
        nn.init.zeros_(self.score.weight)
        nn.init.zeros_(self.score.bias)  # type: ignore[arg-type]  # there is one
        head_of = torch.arange(channels) // (channels // heads)
        self.register_buffer("head_of", head_of, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.maps(x)[0].mean((2, 3), keepdim=True)  # (n, c, 1, 1)

    def maps(self, x: Tensor) -> list[Tensor]:
        """x times the attention it gets."""
        score = self.score(x)  # (n, heads, h, w)
        weight = (score - score.amax((2, 3), keepdim=True)).exp()  # in (0, 1]
        weight = weight / weight.mean((2, 3), keepdim=True)  # (n, heads, h, w), 1 on average
        return [x * weight.index_select(1, self.head_of)]  # (n, c, h, w)
