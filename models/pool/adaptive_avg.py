"""Adaptive average pooling."""

from torch import Tensor, nn
from torch.nn import functional as F

from models.pool.regions import ADAPTIVE, cells


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

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}"

    def forward(self, x: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(x, self.output_size)  # (n, c, oh, ow)

    def maps(self, x: Tensor) -> list[Tensor]:
        """x inside each cell; raises ValueError when a side is kept."""
        inside = cells(x, fixed(self.output_size), ADAPTIVE)  # (n, oh·ow, h, w)
        return [x * (cell / cell.mean((2, 3), keepdim=True)) for cell in inside.split(1, 1)]


def fixed(size: int | tuple[int | None, int | None]) -> tuple[int, int]:
    """Both sides of an output size; raises ValueError unless they are numbers above 0."""
    height, width = (size, size) if isinstance(size, int) else size
    if not height or not width:
        raise ValueError(f"output_size={size} is no fixed number of cells")
    return height, width
