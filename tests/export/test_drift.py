"""Where ONNX Runtime and torch part, and whose fault it is."""

from collections.abc import Callable

import onnx
import onnx_ir as ir
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from export.capture import export_program
from export.drift import explain
from export.lower import to_onnx
from export.served import Served
from export.sizes import EXAMPLE, content
from models.card import Preprocessing
from models.weights import seeded
from tests.export.lowering import Calls

pytestmark = pytest.mark.slow
GREY = Preprocessing(channels=1, mean=(0.0,), std=(1.0,), policy="native")
Change = Callable[[onnx.ModelProto], None]


def said(
    network: nn.Module, size: tuple[int, int, int], change: Change = lambda model: None
) -> str:
    """What is told of a network at a size, its graph changed after the export."""
    served = Served(network, GREY)
    program, _ = export_program(served, torch.from_numpy(content(0, *EXAMPLE, 1)))
    model = ir.to_proto(to_onnx(program, ("logits", "probabilities")))
    change(model)
    pixels = content(1, *size, 1)
    with torch.no_grad():
        logits = served(torch.from_numpy(pixels))[0].numpy()
    return explain(program, model, pixels, logits)


class Small(nn.Module):
    """Two convolutions and the mean of what they give."""

    def __init__(self) -> None:
        super().__init__()
        with seeded(0):
            self.first, self.second = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 3, 3)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.second(self.first(x).relu())
        return y.mean((2, 3))


def test_a_graph_that_says_another_thing_is_our_fault_and_the_layer_is_named() -> None:
    def change(model: onnx.ModelProto) -> None:
        kernel = next(t for t in model.graph.initializer if list(t.dims) == [3, 4, 3, 3])
        kernel.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(kernel) * 1.01, kernel.name))

    told = said(Small(), (2, 40, 50), change)
    assert told.startswith("on 2×40×50 they part at layer second, Conv2d (")
    assert told.endswith("The graph does another thing than torch there: our fault, or that of "
                         "torch.onnx")  # fmt: skip


class Touchy(Small):
    """Between its convolutions, small differences of large numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(4)
        self.first.bias = nn.Parameter(torch.full((4,), 3000.0))
        self.norm.running_mean = torch.full((4,), 3000.0)
        self.norm.running_var = torch.full((4,), 1e-6)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.second(self.norm(self.first(x)).tanh())
        return y.mean((2, 3))


def test_a_network_that_enlarges_rounding_is_nobodys_fault() -> None:
    told = said(Touchy(), (1, 40, 50))
    assert "The network enlarges rounding there, and torch's own answer is no better" in told
    assert "neither ours nor ONNX Runtime's fault" in told


def test_kernels_of_onnx_runtime_that_add_naively_are_not_our_fault() -> None:
    even = Calls(lambda x: x.clamp(0.1, 0.1001).mean((2, 3)))  # 360,000 places, as good as even
    told = said(even, (1, 600, 600))
    assert "The graph is right, ONNX Runtime's kernels for that layer are not" in told


def test_a_program_that_is_not_the_network_any_more_is_told() -> None:
    network = Calls(lambda x: (x * 3 if x.shape[2] % 2 else x).mean((2, 3)))
    told = said(network, (1, 40, 50))
    assert told.startswith("on 1×40×50 the program that torch.export made is not the network")


@pytest.mark.parametrize("size", [(1, 40, 50), (2, 9, 8)])
def test_where_nothing_is_wrong_that_is_told(size: tuple[int, int, int]) -> None:
    assert said(Small(), size).startswith("layer by layer they agree")
