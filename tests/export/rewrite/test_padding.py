"""Padding before a pooling stays what it is, whatever ONNX Runtime would make of it."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tests.export.lowering import Function, Pixels, lower, relative_error, run, session


def padded_maximum(x: Tensor) -> Tensor:
    return F.max_pool2d(F.pad(x - 9, (1, 1, 1, 1)), 3, 2)  # all negative: the 0 around them wins


def padded_average(x: Tensor) -> Tensor:
    return F.avg_pool2d(F.pad(x - 9, (1, 2, 2, 1)), 3, 2, 1, count_include_pad=False)


def lowered_maximum(x: Tensor) -> Tensor:
    return F.max_pool2d(F.pad(x, (0, 1, 0, 1), value=-1e9), 2, 2)


@pytest.mark.parametrize("function", [padded_maximum, padded_average, lowered_maximum])
@pytest.mark.parametrize("size", [(5, 7), (16, 9), (33, 40)])
def test_padding_before_a_pooling_is_kept(function: Function, size: tuple[int, int]) -> None:
    network = Pixels([lambda x: function(x * 1.0)])
    pixels = np.random.default_rng(0).random((2, *size, 2), np.float32)
    want = network(torch.from_numpy(pixels))[0].numpy()
    assert relative_error(run(session(lower(network, 1)), pixels)[0], want) <= 2e-5
