"""Short formulas for the sides of maps, and only where they are the same at every size."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from export.capture import export_program
from export.errors import CaptureError
from export.shapes import sized
from export.sizes import EXAMPLE
from tests.export.lowering import Calls, Pixels, lower, relative_error, run, session


class Same(nn.Module):
    """A convolution with TensorFlow's padding: the last rows and columns get more of it."""

    def __init__(self, kernel: int, stride: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(2, 2, kernel, stride)
        self.kernel, self.stride = kernel, stride

    def forward(self, x: Tensor) -> Tensor:
        (top, bottom), (left, right) = (self.around(side) for side in x.shape[2:])
        y: Tensor = self.convolution(F.pad(x, (left, right, top, bottom)))
        return y

    def around(self, side: int) -> tuple[int, int]:
        whole = max((math.ceil(side / self.stride) - 1) * self.stride + self.kernel - side, 0)
        return whole // 2, whole - whole // 2


def last_map(network: nn.Module) -> Any:
    """The symbolic shape of what `network` makes of images of two channels."""
    program, _ = export_program(Pixels([network]).eval(), torch.zeros(*EXAMPLE, 2))
    return program.graph.output_node().args[0][0].meta["val"].shape


class SamePool(Same):
    """A maximum with the same padding."""

    def forward(self, x: Tensor) -> Tensor:
        (top, bottom), (left, right) = (self.around(side) for side in x.shape[2:])
        return F.max_pool2d(F.pad(x, (left, right, top, bottom)), self.kernel, self.stride)


def test_padding_as_tensorflow_does_it_leaves_a_short_formula() -> None:
    network = nn.Sequential(Same(3, 2), SamePool(3, 2), Same(3, 1), Same(5, 2), SamePool(5, 2))
    _, _, height, width = last_map(network)
    assert [side.node.expr.count_ops() <= 4 for side in (height, width)] == [True, True]
    (symbol,) = height.node.expr.free_symbols
    for side in (1, 2, 15, 16, 17, 224, 1031):
        assert height.node.expr.subs({symbol: side}) == math.ceil(side / 16)


def test_a_network_with_such_padding_is_right_at_any_size() -> None:
    network = Pixels([nn.Sequential(Same(3, 2), Same(5, 2), nn.MaxPool2d(2, 2, 0), Same(3, 2))])
    graph = session(lower(network.eval(), 1))
    for n, h, w in [(2, 37, 53), (1, 5, 8), (3, 64, 31), (1, 130, 9)]:
        pixels = np.random.default_rng(h).standard_normal((n, h, w, 2)).astype(np.float32)
        with torch.no_grad():
            (want,) = network(torch.from_numpy(pixels))
        assert relative_error(run(graph, pixels)[0], want.numpy()) < 2e-5


def test_a_formula_that_has_no_short_form_stays() -> None:
    def uneven(x: Tensor) -> Tensor:
        x = F.pad(x, (0, x.shape[3] % 3, 0, (x.shape[2] * x.shape[2]) % 5))
        return F.avg_pool2d(F.avg_pool2d(F.avg_pool2d(x, 2), 2), 2)

    _, _, height, _ = last_map(Calls(uneven))
    (symbol,) = height.node.expr.free_symbols
    for side in (33, 34, 35, 61):
        assert height.node.expr.subs({symbol: side}) == (side + side * side % 5) // 8


def test_a_map_is_never_taken_for_one_of_another_size() -> None:
    x = torch.rand(1, 2, 3, 4)
    assert torch.equal(sized(x, 3, 4), x)
    with pytest.raises(RuntimeError, match="was taken for one of"):
        sized(x, 4, 3)


@pytest.mark.parametrize("rounded", [math.ceil, math.floor])
def test_other_fractions_are_refused_with_what_to_write(rounded: Callable[[float], int]) -> None:
    calls = Calls(lambda x: x[:, :, : rounded(x.shape[2] * 0.3) + 1])
    with pytest.raises(CaptureError, match=r"write it in whole numbers, such as -\(-n // 2\)"):
        last_map(calls)
