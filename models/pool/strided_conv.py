"""Strided convolution in the place of pooling."""

from torch import Tensor, nn


class StridedConvPool(nn.Module):
    """A convolution with a stride: pooling whose weights are learnt.

    y = W * x + b, every stride-th place; (n, c, h, w) to (n, c, h', w'),
    h' = floor((h + 2·padding - kernel) / stride) + 1. Untrained it is the average of each window.
    Source: Springenberg et al., "Striving for Simplicity: The All Convolutional Net", 2014.
    Good for: making maps smaller inside a network, where training may decide how.
    """

    def __init__(
        self, channels: int, kernel_size: int = 3, stride: int = 2, padding: int = 1
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, kernel_size, stride, padding)
        nn.init.dirac_(self.conv.weight)
        centre = self.conv.weight.data[:, :, kernel_size // 2, kernel_size // 2]
        self.conv.weight.data = centre[:, :, None, None].repeat(1, 1, kernel_size, kernel_size)
        self.conv.weight.data /= kernel_size**2
        nn.init.zeros_(self.conv.bias)  # type: ignore[arg-type]  # there is one

    def forward(self, x: Tensor) -> Tensor:
        pooled: Tensor = self.conv(x)  # (n, c, h', w')
        return pooled
