"""Adaptive max pooling."""

from torch import Tensor, nn

from models.pool.adaptive_avg import fixed
from models.pool.regions import ADAPTIVE, cells
from models.pool.winners import winners


class AdaptiveMaxPool(nn.Module):
    """Keep the strongest response in each cell of a fixed grid, whatever the image's size.

    The cells are those of AdaptiveAvgPool. (n, c, h, w) to (n, c, oh, ow); a size of None keeps
    that side as it is. Source: torch.nn.AdaptiveMaxPool2d, which this equals.
    Good for: small things anywhere in a cell, which an average would dilute.
    """

    def __init__(self, output_size: int | tuple[int | None, int | None]) -> None:
        super().__init__()
        self.output_size = output_size
        self._pool = nn.AdaptiveMaxPool2d(output_size)

    def forward(self, x: Tensor) -> Tensor:
        pooled: Tensor = self._pool(x)  # (n, c, oh, ow)
        return pooled

    def maps(self, x: Tensor) -> list[Tensor]:
        """The maximum of each cell, where it is; raises ValueError when a side is kept."""
        inside = cells(x, fixed(self.output_size), ADAPTIVE).split(1, 1)
        highest = self(x).flatten(2)[..., None, None].unbind(2)  # oh·ow times (n, c, 1, 1)
        return [winners(x, y, cell) for y, cell in zip(highest, inside, strict=True)]
