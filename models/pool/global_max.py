"""Global max pooling."""

from torch import Tensor, nn

from models.pool.winners import winners


class GlobalMaxPool(nn.Module):
    """Keep the strongest response of every channel, wherever in the image it is.

    y[c] = max over (i, j) of x[c, i, j]; (n, c, h, w) to (n, c, 1, 1).
    Source: Oquab et al., "Is object localization for free?", CVPR 2015.
    Good for: large images with small objects.
    """

    def forward(self, x: Tensor) -> Tensor:
        return x.amax((2, 3), keepdim=True)  # (n, c, 1, 1)

    def maps(self, x: Tensor) -> list[Tensor]:
        """The maximum, at the places that have it."""
        return [winners(x, self(x))]
