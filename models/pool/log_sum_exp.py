"""Log-sum-exp pooling."""

from math import inf

from torch import Tensor, nn

_LEAST = 1e-3  # below, float32 cannot tell exp(r·x) from 1


class LogSumExpPool(nn.Module):
    """A smooth maximum of every channel: near the average for small r, near the maximum for large.

    y[c] = log(mean over (i, j) of exp(r·x[c, i, j])) / r; (n, c, h, w) to (n, c, 1, 1).
    Source: Pinheiro, Collobert, "From Image-level to Pixel-level Labeling with Convolutional
    Networks", CVPR 2015, equation 6. The largest value is taken out first, so nothing overflows.
    Good for: learning where things are from labels of whole images.
    """

    def __init__(self, r: float = 5.0) -> None:
        super().__init__()
        if not _LEAST <= r < inf:
            raise ValueError(f"r={r}: must be {_LEAST} or more, and finite; avg is its limit at 0")
        self.r = float(r)

    def extra_repr(self) -> str:
        return f"r={self.r:g}"

    def forward(self, x: Tensor) -> Tensor:
        highest = x.amax((2, 3), keepdim=True)  # (n, c, 1, 1)
        mean = self._powers(x, highest).mean((2, 3), keepdim=True)  # (n, c, 1, 1)
        return highest + mean.log() / self.r

    def maps(self, x: Tensor) -> list[Tensor]:
        """The pooled value, in proportion to each place's share of the sum."""
        highest = x.amax((2, 3), keepdim=True)
        powers = self._powers(x, highest)  # (n, c, h, w)
        mean = powers.mean((2, 3), keepdim=True)
        return [(highest + mean.log() / self.r) * (powers / mean)]

    def _powers(self, x: Tensor, highest: Tensor) -> Tensor:
        return (self.r * (x - highest)).exp()  # in (0, 1]
