"""Means of powers, which neither overflow nor vanish."""

from torch import Tensor

TINY = 1e-30


def power_mean(x: Tensor, p: Tensor | float) -> tuple[Tensor, Tensor]:
    """(mean of x^p)^(1/p) over space, and a map whose mean that is: its share for each place.

    x: (n, c, h, w), nowhere below 0. The largest value is taken out first: 1e-6^7 is 0 in float32.
    """
    highest = x.amax((2, 3), keepdim=True)  # (n, c, 1, 1)
    powers = (x / highest.clamp(min=TINY)).pow(p)  # (n, c, h, w), 1 at the highest
    mean = powers.mean((2, 3), keepdim=True).clamp(min=TINY)  # 0 only where all is
    y = highest * mean.pow(1 / p)  # (n, c, 1, 1)
    return y, y * (powers / mean)
