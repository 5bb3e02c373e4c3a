"""Stochastic pooling over windows."""

from torch import Tensor, nn
from torch.nn import functional as F

from models.pool.powers import TINY
from models.pool.stochastic import drawn


class StochasticWindowPool(nn.Module):
    """Pick one response of each window at random, strong ones more often.

    Training: a value a of the window with probability a / sum of the window. Inference: their
    mean, sum of a² / sum of a. Negative responses count as 0; where all are 0, so is y.
    (n, c, h, w) to (n, c, h', w'), h' = floor((h - kernel) / stride) + 1.
    Source: Zeiler, Fergus, "Stochastic Pooling for Regularization of Deep Convolutional Neural
    Networks", ICLR 2013. Good for: little training data; it regularises without a parameter.
    """

    def __init__(self, kernel_size: int = 3, stride: int = 2) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = stride

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}"

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(x)
        if self.training:
            k, s = self.kernel_size, self.stride
            windows = x.unfold(2, k, s).unfold(3, k, s).flatten(4)  # (n, c, h', w', k²)
            return drawn(windows).squeeze(4)  # (n, c, h', w')
        mean = F.avg_pool2d(x, self.kernel_size, self.stride)  # (n, c, h', w')
        return F.avg_pool2d(x * x, self.kernel_size, self.stride) / mean.clamp(min=TINY)
