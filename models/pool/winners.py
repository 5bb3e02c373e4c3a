"""Where a maximum comes from, so that rounding cannot move it."""

from torch import Tensor

from models.pool.powers import TINY

# Places within 1 % of the maximum share it, in proportion to how near they come: were it the
# largest alone, two equal ones would change places with the last bit of a float.
_NEAR = 0.01


def winners(x: Tensor, y: Tensor, inside: Tensor | None = None) -> Tensor:
    """A map (n, c, h, w) whose mean over space is y (n, c, 1, 1), the maximum of x.

    inside: 1 where the maximum was taken, 0 elsewhere; None is everywhere
    """
    width = (_NEAR * y.abs()).clamp(min=TINY)
    share = ((x - y) / width + 1).clamp(0, 1)  # (n, c, h, w)
    if inside is not None:
        share = share * inside
    return y * (share / share.mean((2, 3), keepdim=True))  # (n, c, h, w)
