"""One artifact, ready to run on ONNX Runtime."""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from models.card import Card
from service.images import Pixels

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # only counts before the import below
import onnxruntime as ort

logger = logging.getLogger(__name__)

Provider = Literal["auto", "cpu", "cuda"]
_CPU, _CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
_ERRORS_ONLY = 3


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

    def __init__(self, folder: Path, provider: Provider = "auto", *, mixed: bool = False) -> None:
        """Load the artifact in `folder`; raises CardError, EngineError.

        mixed: also load ragged.onnx, where there is one, to run images of different sizes together.
        """
        self.card = Card.load(folder / "card.json")
        self._plain = _session(folder / "model.onnx", provider)
        self._ragged = (
            _session(folder / "ragged.onnx", provider)
            if mixed and self.card.mixed.supported
            else None
        )
        self.provider: str = self._plain.get_providers()[0]
        if provider == "cuda" and self.provider != _CUDA:
            raise EngineError("CUDA was asked for, but ONNX Runtime found no usable GPU")
        if provider == "auto" and self.provider == _CPU and _CUDA in ort.get_available_providers():
            logger.warning("no usable GPU was found: running on the CPU")

    @property
    def mixes(self) -> bool:
        """Whether images of different sizes may share a run."""
        return self._ragged is not None

    def run(self, pictures: Sequence[Pixels]) -> Scores:
        """Scores of n images, each uint8 (h, w, c), of one size unless `mixes`. Raises EngineError.

        Sizes below the card's never reach ONNX Runtime, which could die of them.
        """
        for picture in pictures:
            self._check(picture)
        if len({picture.shape for picture in pictures}) == 1:
            return self._run(self._plain, {"pixels": np.stack(pictures)})
        if self._ragged is None:
            raise EngineError(f"{len(pictures)} images of different sizes, or none, in one run")
        return self._run(self._ragged, on_canvas(pictures))

    def run_canvas(self, pixels: NDArray[np.uint8], sizes: NDArray[np.int64]) -> Scores:
        """Scores of images on a canvas (n, H, W, c), top left, with sizes (n, 2) as (h, w).

        What the canvas holds outside the images does not matter. Raises EngineError.
        """
        if self._ragged is None:
            raise EngineError("this artifact cannot run images of different sizes together")
        for canvas, (h, w) in zip(pixels, sizes, strict=True):
            self._check(canvas[:h, :w])
        return self._run(self._ragged, {"pixels": pixels, "sizes": sizes})

    def warm_up(self) -> None:
        """Run at the smallest size and at the usual one, so that the first client need not wait."""
        limits, channels = self.card.limits, self.card.preprocessing.channels
        h, w = limits.smallest()
        side = max(self.card.preprocessing.size or 0, h, w) // limits.multiple * limits.multiple
        small = np.zeros((h, w, channels), np.uint8)
        usual = np.zeros((side, side, channels), np.uint8)
        self.run([small])
        self.run([usual])
        if self.mixes:
            self.run([small, usual])

    def _check(self, picture: Pixels) -> None:
        (h, w, c), limits = picture.shape, self.card.limits
        channels = self.card.preprocessing.channels
        fits = h % limits.multiple == w % limits.multiple == 0
        if h < limits.min_height or w < limits.min_width or c != channels or not fits:
            raise EngineError(
                f"{h}×{w}×{c} cannot run: the network takes at least "
                f"{limits.min_height}×{limits.min_width} pixels of {channels} channels, "
                f"sides divisible by {limits.multiple}"
            )

    def _run(self, session: ort.InferenceSession, feed: dict[str, NDArray[Any]]) -> Scores:
        names = list(self.card.outputs)
        try:
            arrays = dict(zip(names, session.run(names, feed), strict=True))
        except Exception as exc:  # ORT has no base class for its errors
            shape = "×".join(str(side) for side in feed["pixels"].shape)
            raise EngineError(f"ONNX Runtime failed on {shape}: {exc}") from exc
        return Scores(arrays["logits"], arrays["probabilities"], arrays.get("embedding"))


def on_canvas(pictures: Sequence[Pixels]) -> dict[str, NDArray[Any]]:
    """Images (h, w, c) together in the inputs of ragged.onnx, top left on one canvas."""
    sizes = np.array([picture.shape[:2] for picture in pictures], np.int64)  # (n, 2)
    height, width = sizes.max(0)
    pixels = np.zeros((len(pictures), height, width, pictures[0].shape[2]), np.uint8)
    lay(pictures, pixels)
    return {"pixels": pixels, "sizes": sizes}


def lay(pictures: Sequence[Pixels], canvas: NDArray[Any]) -> None:
    """Put each image (h, w, c) at the top left of its place on a canvas (n, H, W, c)."""
    for place, picture in zip(canvas, pictures, strict=True):
        place[: picture.shape[0], : picture.shape[1]] = picture


def _session(path: Path, provider: Provider) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.enable_mem_pattern = False  # shapes vary: patterns would only hoard memory
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = _ERRORS_ONLY
    try:
        return ort.InferenceSession(path, options, providers=_providers(provider))
    except EngineError:
        raise
    except Exception as exc:  # ORT has no base class for its errors
        raise EngineError(f"ONNX Runtime cannot load {path}: {exc}") from exc


def _providers(wanted: Provider) -> list[str]:
    if wanted == "cpu":
        return [_CPU]
    available = ort.get_available_providers()
    if wanted == "cuda" and _CUDA not in available:
        raise EngineError("CUDA was asked for; it needs the extra gpu: pip install 'anypool[gpu]'")
    return [p for p in (_CUDA, _CPU) if p in available]
