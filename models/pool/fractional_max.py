"""Fractional max pooling."""

from torch import Tensor, nn
from torch.nn import functional as F

from models.pool.regions import cells, region_maxima
from models.pool.winners import winners


class FractionalMaxPool(nn.Module):
    """The maxima of regions that overlap and shift, oh × ow of them whatever the image's size.

    Training: regions drawn at random anew each time. Inference: fixed ones, so that an image
    always gets the same answer: over n places, region i of o starts at
    floor((2i+1)(n-k) / (2(o-1))) - floor((n-k) / (2(o-1))) and is k long.
    (n, c, h, w) to (n, c, oh, ow); a side needs k + o - 1 places.
    Source: Graham, "Fractional Max-Pooling", 2014, overlapping regions; in training this is
    torch.nn.FractionalMaxPool2d, which would draw at inference too.
    Good for: little training data; shrinking a map by less than 2.
    """

    def __init__(
        self, output_size: int | tuple[int, int] = 3, kernel_size: int | tuple[int, int] = 2
    ) -> None:
        super().__init__()
        self.output_size = _pair(output_size)
        self.kernel_size = _pair(kernel_size)
        if min(self.output_size) < 2 or min(self.kernel_size) < 1:
            raise ValueError(
                f"output_size={output_size}, kernel_size={kernel_size}: "
                "at least 2 regions a side, of at least 1 place"
            )

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}, kernel_size={self.kernel_size}"

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            pooled: Tensor = F.fractional_max_pool2d(x, self.kernel_size, self.output_size)
        else:
            pooled = region_maxima(x, self.output_size, self.kernel_size)
        return pooled  # (n, c, oh, ow)

    def maps(self, x: Tensor) -> list[Tensor]:
        """The maximum of each region, where it is, as at inference."""
        inside = cells(x, self.output_size, self.kernel_size).split(1, 1)
        highest = region_maxima(x, self.output_size, self.kernel_size)
        values = highest.flatten(2)[..., None, None].unbind(2)  # oh·ow times (n, c, 1, 1)
        return [winners(x, y, cell) for y, cell in zip(values, inside, strict=True)]


def _pair(size: int | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else size
