"""Average pooling over windows."""

from torch import Tensor, nn


class AvgWindowPool(nn.Module):
    """Average windows of a fixed size: the map shrinks, and stays a map.

    y[c, i, j] = mean of x[c] over the window that starts at (i·stride - padding, j·stride -
    padding); (n, c, h, w) to (n, c, h', w'), h' = floor((h + 2·padding - kernel) / stride) + 1,
    rounded up with ceil_mode. kernel_size, stride and padding: one number, or (height, width).
    Source: torch.nn.AvgPool2d, which this is; LeCun et al., 1998.
    Good for: making maps smaller inside a network; before a classifier a global pooling follows.
    """

    def __init__(
        self,
        kernel_size: int | tuple[int, int] = 2,
        stride: int | tuple[int, int] | None = None,
        padding: int | tuple[int, int] = 0,
        *,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(kernel_size, stride, padding, ceil_mode, count_include_pad)

    def forward(self, x: Tensor) -> Tensor:
        pooled: Tensor = self.pool(x)  # (n, c, h', w')
        return pooled
