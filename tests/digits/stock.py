"""The same network through the exporter of torch alone, as its documentation calls it."""

import copy
import logging
import warnings
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from models.classifier import PoolingClassifier
from models.pool.fractional_max import FractionalMaxPool

EXAMPLE = (2, 1, 28, 28)  # of a usual size: what MNIST has
_ONLY_FATAL = 4


class Stock:
    """What torch.onnx.export makes of a network with dynamic batch, height and width.

    refused: what was raised instead of making a graph that loads; None if there is one
    """

    def __init__(self, network: PoolingClassifier) -> None:
        options = ort.SessionOptions()
        options.log_severity_level = _ONLY_FATAL  # an operator that fails raises as well
        self.refused: str | None = None
        try:
            graph = _exported(_of_torch_alone(network))
            self._session: Any = ort.InferenceSession(
                graph, options, providers=["CPUExecutionProvider"]
            )
        except Exception as exc:  # torch and ONNX Runtime raise what they like
            self.refused = type(exc).__name__

    def logits(self, x: Tensor) -> NDArray[np.float32] | None:
        """Logits (n, 10) of images (n, 1, h, w); None where the graph fails or there is none."""
        if self.refused is not None:
            return None
        try:
            (logits,) = self._session.run(None, {"x": x.numpy()})
        except Exception:  # ONNX Runtime has a class for each status, none of them exported
            return None
        return np.asarray(logits)


@torch.no_grad()
def _exported(network: nn.Module) -> bytes:
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it misses torchvision, we do not
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch deprecates its own parts
        program = torch.onnx.export(
            network,
            (torch.zeros(EXAMPLE),),
            dynamo=True,
            input_names=["x"],
            dynamic_shapes=(dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC),),
            verbose=False,
        )
    assert program is not None
    graph: bytes = program.model_proto.SerializeToString()
    return graph


def _of_torch_alone(network: PoolingClassifier) -> PoolingClassifier:
    """A copy without operators of ours, which no other exporter could know."""
    network = copy.deepcopy(network)
    if isinstance(network.pool, FractionalMaxPool):
        network.pool = _FractionalMaxPool(network.pool.output_size, network.pool.kernel_size)
    return network


class _FractionalMaxPool(nn.Module):
    """Torch's fractional max pooling, held to the regions that ours has at inference."""

    def __init__(self, output_size: tuple[int, int], kernel_size: tuple[int, int]) -> None:
        super().__init__()
        self.output_size = output_size
        self.kernel_size = kernel_size

    def forward(self, x: Tensor) -> Tensor:
        middle = x.new_full((x.shape[0], x.shape[1], 2), 0.5)
        return F.fractional_max_pool2d(
            x, self.kernel_size, self.output_size, _random_samples=middle
        )
