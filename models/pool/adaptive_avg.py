"""Adaptive average pooling."""

from torch import Tensor, nn
from torch.nn import functional as F


class AdaptiveAvgPool(nn.Module):
    """Average an image into a fixed grid of cells, whatever its size.

    Over a side of n pixels, cell i of o covers the pixels floor(i·n/o) … ceil((i+1)·n/o) - 1, so
    neighbours may overlap by one pixel and a side shorter than o repeats pixels.
    (n, c, h, w) to (n, c, oh, ow); a size of None keeps that side as it is.
    Source: torch.nn.AdaptiveAvgPool2d, which this equals. Good for: a coarse layout.
    """

    def __init__(self, output_size: int | tuple[int | None, int | None]) -> None:
        super().__init__()
        self.output_size = output_size

    def forward(self, x: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(x, self.output_size)  # (n, c, oh, ow)
