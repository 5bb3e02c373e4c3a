"""Adaptive max pooling."""

from torch import Tensor, nn


class AdaptiveMaxPool(nn.Module):
    """Keep the strongest response in each cell of a fixed grid, whatever the image's size.

    The cells are those of AdaptiveAvgPool. (n, c, h, w) to (n, c, oh, ow); a size of None keeps
    that side as it is. Source: torch.nn.AdaptiveMaxPool2d, which this equals.
    Good for: small things anywhere in a cell, which an average would dilute.
    """

    def __init__(self, output_size: int | tuple[int | None, int | None]) -> None:
        super().__init__()
        self._pool = nn.AdaptiveMaxPool2d(output_size)

    def forward(self, x: Tensor) -> Tensor:
        pooled: Tensor = self._pool(x)  # (n, c, oh, ow)
        return pooled
