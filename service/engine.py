"""One artifact, ready to run on ONNX Runtime."""

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from models.card import Card

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # only counts before the import below
import onnxruntime as ort

logger = logging.getLogger(__name__)

Provider = Literal["auto", "cpu", "cuda"]
_CPU, _CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
_OPTIONAL_RUN_LOG = 3  # errors only


class EngineError(Exception):
    """An artifact that cannot be loaded or run here; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Scores:
    """What the network says of n images."""

    logits: NDArray[np.float32]  # (n, k)
    probabilities: NDArray[np.float32]  # (n, k)
    embedding: NDArray[np.float32] | None  # (n, f)

    def row(self, index: int) -> "Scores":
        """The scores of one image, as a batch of one."""
        at = slice(index, index + 1)
        return Scores(
            self.logits[at],
            self.probabilities[at],
            None if self.embedding is None else self.embedding[at],
        )


class Engine:
    """Runs one artifact; safe to call from several threads at once.

    One session with one thread a run: callers bring the parallelism (one for each core), which on
    a CPU gives the best throughput and is the only arrangement that holds on a busy host.
    """

    def __init__(self, folder: Path, provider: Provider = "auto") -> None:
        """Load the artifact in `folder`; raises CardError, EngineError."""
        self.card = Card.load(folder / "card.json")
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.enable_mem_pattern = False  # shapes vary: patterns would only hoard memory
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.log_severity_level = _OPTIONAL_RUN_LOG
        try:
            self._session = ort.InferenceSession(
                folder / "model.onnx", options, providers=_providers(provider)
            )
        except Exception as exc:  # ORT has no base class for its errors
            raise EngineError(f"ONNX Runtime cannot load {folder / 'model.onnx'}: {exc}") from exc
        self.provider: str = self._session.get_providers()[0]
        if provider == "cuda" and self.provider != _CUDA:
            raise EngineError("CUDA was asked for, but ONNX Runtime found no usable GPU")
        if provider == "auto" and self.provider == _CPU and _CUDA in ort.get_available_providers():
            logger.warning("no usable GPU was found: running on the CPU")
        self._outputs = [name for name in self.card.outputs if name != "embedding"]
        self._has_embedding = "embedding" in self.card.outputs

    def run(self, pixels: NDArray[np.uint8]) -> Scores:
        """Scores of images of one size: uint8 (n, h, w, c). Raises EngineError.

        Sizes below the card's never reach ONNX Runtime, which could die of them.
        """
        n, h, w, c = pixels.shape
        limits, channels = self.card.limits, self.card.preprocessing.channels
        if h < limits.min_height or w < limits.min_width or c != channels or n < 1:
            raise EngineError(
                f"{n}×{h}×{w}×{c} cannot run: the network takes at least "
                f"{limits.min_height}×{limits.min_width} pixels of {channels} channels"
            )
        names = [*self._outputs, "embedding"] if self._has_embedding else self._outputs
        try:
            arrays = dict(zip(names, self._session.run(names, {"pixels": pixels}), strict=True))
        except Exception as exc:
            raise EngineError(f"ONNX Runtime failed on {n}×{h}×{w}×{c}: {exc}") from exc
        return Scores(arrays["logits"], arrays["probabilities"], arrays.get("embedding"))

    def warm_up(self) -> None:
        """Run at the smallest size and at the usual one, so that the first client need not wait."""
        preprocessing = self.card.preprocessing
        h, w = self.card.limits.smallest()
        usual = max(preprocessing.size or 0, h, w) // self.card.limits.multiple
        side = usual * self.card.limits.multiple
        for height, width in ((h, w), (side, side)):
            self.run(np.zeros((1, height, width, preprocessing.channels), np.uint8))


def _providers(wanted: Provider) -> list[str]:
    if wanted == "cpu":
        return [_CPU]
    available = ort.get_available_providers()
    if wanted == "cuda" and _CUDA not in available:
        raise EngineError("CUDA was asked for; it needs the extra gpu: pip install 'anypool[gpu]'")
    return [p for p in (_CUDA, _CPU) if p in available]
