"""L_p pooling."""

from math import inf

from torch import Tensor, nn

from models.pool.powers import power_mean


class LpPool(nn.Module):
    """The normalised L_p norm of every channel, blind to signs.

    y[c] = (mean over (i, j) of |x[c, i, j]|^p)^(1/p); (n, c, h, w) to (n, c, 1, 1). p = 1 averages
    the magnitudes, p = 2 is their root mean square. torch.nn.LPPool2d over the whole image is
    this times (h·w)^(1/p), which would grow with the image; the mean does not.
    Source: Gulcehre et al., "Learned-Norm Pooling for Deep Feedforward and Recurrent Neural
    Networks", ECML 2014. Good for: energy, where sign does not matter.
    """

    def __init__(self, p: float = 2.0) -> None:
        super().__init__()
        if not 1 <= p < inf:
            raise ValueError(f"p={p}: a norm needs 1 or more, and finite")
        self.p = float(p)

    def extra_repr(self) -> str:
        return f"p={self.p:g}"

    def forward(self, x: Tensor) -> Tensor:
        return power_mean(x.abs(), self.p)[0]  # (n, c, 1, 1)

    def maps(self, x: Tensor) -> list[Tensor]:
        """The pooled value, in proportion to each place's power."""
        return [power_mean(x.abs(), self.p)[1]]
