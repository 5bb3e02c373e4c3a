"""Which places lie in which cell of a grid, for images of any size.

Two ways to lay o cells over a side of n places, both in whole numbers, so that every runtime finds
the same ones:

adaptive: cell i covers floor(i·n/o) … ceil((i+1)·n/o) - 1, as in torch.nn.AdaptiveAvgPool2d
fractional: k places from floor((2i+1)(n-k) / (2(o-1))) - floor((n-k) / (2(o-1))) on, which are
    the regions of Graham, "Fractional Max-Pooling", 2014, section 2, at u = 1/2

The two operators below are torch.library operators, so that torch.export keeps them whole: it
would unroll these regions with the example's size.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

ADAPTIVE = (0, 0)  # as the kernel: windows as wide as they must be


def spans(n: int, o: int, kernel: int) -> list[tuple[int, int]]:
    """First place of each of o cells over n places, and the one after its last.

    kernel: 0 for adaptive cells; raises ValueError when n places are too few for fractional ones.
    """
    if not kernel:
        return [(i * n // o, -(-(i + 1) * n // o)) for i in range(o)]
    if n < kernel + o - 1:
        raise ValueError(
            f"{o} fractional regions of {kernel} places need {kernel + o - 1} places, not {n}"
        )
    free, gaps = n - kernel, 2 * (o - 1)
    starts = [(2 * i + 1) * free // gaps - free // gaps for i in range(o)]
    return [(start, start + kernel) for start in starts]


@torch.library.custom_op("anypool::cells", mutates_args=())
def cells(x: Tensor, output_size: Sequence[int], kernel: Sequence[int]) -> Tensor:
    """Where each cell lies on the map x (n, c, h, w): 1 inside and 0 outside, (n, oh·ow, h, w)."""
    n, _, h, w = x.shape
    (oh, ow), (kh, kw) = output_size, kernel
    marks = x.new_zeros((n, oh * ow, h, w))
    rows, columns = spans(h, oh, kh), spans(w, ow, kw)
    for cell, mark in enumerate(marks.unbind(1)):
        (top, bottom), (left, right) = rows[cell // ow], columns[cell % ow]
        mark[:, top:bottom, left:right] = 1
    return marks


@cells.register_fake
def _(x: Tensor, output_size: Sequence[int], kernel: Sequence[int]) -> Tensor:
    return x.new_empty([x.shape[0], output_size[0] * output_size[1], *x.shape[2:]])


def region_maxima(x: Tensor, output_size: Sequence[int], kernel: Sequence[int]) -> Tensor:
    """The maximum in each fractional region: (n, c, h, w) to (n, c, oh, ow)."""
    if torch.compiler.is_exporting():
        whole: Tensor = fractional_max_pool2d(x, output_size, kernel)
        return whole
    rows, columns = (
        spans(side, out, k) for side, out, k in zip(x.shape[2:], output_size, kernel, strict=True)
    )
    x = torch.stack([x[:, :, a:b].amax(2) for a, b in rows], 2)  # (n, c, oh, w)
    return torch.stack([x[..., a:b].amax(3) for a, b in columns], 3)  # (n, c, oh, ow)


@torch.library.custom_op("anypool::fractional_max_pool2d", mutates_args=())
def fractional_max_pool2d(x: Tensor, output_size: Sequence[int], kernel: Sequence[int]) -> Tensor:
    """`region_maxima` in one piece; without gradients."""
    return region_maxima(x, output_size, kernel)


@fractional_max_pool2d.register_fake
def _(x: Tensor, output_size: Sequence[int], kernel: Sequence[int]) -> Tensor:
    return x.new_empty([*x.shape[:2], *output_size])
