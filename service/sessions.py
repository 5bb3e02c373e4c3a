"""Sessions of ONNX Runtime: how they are made, on which device."""

import logging
import os
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from service import cuda
from service.costs import Canvas
from service.external import Malformed, has_external_data
from service.failures import EngineError

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # only counts before the import below
import onnxruntime as ort

logger = logging.getLogger(__name__)

Provider = Literal["auto", "cpu", "cuda"]
Search = Literal["HEURISTIC", "EXHAUSTIVE", "DEFAULT"]
CPU = "cpu"  # the device; GPUs are called cuda:0, cuda:1, …
_CPU, _CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
_ERRORS_ONLY = 3


@dataclass(frozen=True, slots=True)
class Gpu:
    """How GPUs are used.

    devices: their numbers; None is all that the driver shows
    tf32: whether convolutions may round to 10 bits
    search: how cuDNN chooses an algorithm for each new shape
    """

    devices: tuple[int, ...] | None = None
    tf32: bool = False
    search: Search = "HEURISTIC"


class Stop:
    """Ends a run from another thread."""

    def __init__(self) -> None:
        self.options = ort.RunOptions()

    def set(self) -> None:
        """Make the run fail soon: between two of its operators."""
        self.options.terminate = True

    @property
    def is_set(self) -> bool:
        return bool(self.options.terminate)

    def shrink(self, device: str) -> None:
        """After the run, give the device's memory back that it took."""
        name, _, number = device.partition(":")
        arena = "cpu:0" if name == CPU else f"gpu:{number}"
        self.options.add_run_config_entry("memory.enable_memory_arena_shrinkage", arena)


class Sessions:
    """Those of one artifact on one device: any shape, mixed sizes, and each pinned canvas.

    provider: what runs them, as ONNX Runtime calls it
    fell_back: that is the CPU, since CUDA could not be loaded
    """

    def __init__(
        self, folder: Path, device: str, gpu: Gpu, canvases: Sequence[Canvas], *, mixes: bool
    ) -> None:
        """Raises EngineError."""
        ragged = folder / "ragged.onnx"
        self.plain = _session(folder / "model.onnx", device, gpu)
        self.provider: str = self.plain.get_providers()[0]
        self.fell_back = device != CPU and self.provider != _CUDA
        self.ragged = _session(ragged, device, gpu) if mixes else None
        self.pinned = {canvas: _session(ragged, device, gpu, canvas) for canvas in canvases}


def devices(provider: Provider, gpu: Gpu) -> tuple[str, ...]:
    """Where to run: the CPU, or a name for each GPU; raises EngineError."""
    if _usable(provider) == CPU:
        return (CPU,)
    shown = len(cuda.names())
    chosen = range(shown) if gpu.devices is None else gpu.devices
    if missing := [number for number in chosen if number >= shown]:
        raise EngineError(f"there is no GPU {missing[0]}; the driver shows {shown}, from 0 on")
    return tuple(f"cuda:{number}" for number in chosen)


def why_not(wanted: Provider, on: Sequence[str]) -> str | None:
    """Why it is not the GPU, where it could be; raises EngineError when that was asked for."""
    if wanted == "cpu" or CPU not in on or cuda.cuda_version() is None:
        return None
    problem = cuda.problem() or "ONNX Runtime could not load CUDA; its own messages say why"
    if wanted == "cuda":
        raise EngineError(f"CUDA was asked for: {problem}")
    logger.warning("no usable GPU, running on the CPU: %s", problem)
    return problem


def cuda_options(device: int, gpu: Gpu) -> dict[str, str]:
    """What ONNX Runtime's CUDA provider is told.

    No gpu_mem_limit: it holds for each session alone, and an artifact has several.
    """
    return {
        "device_id": str(device),
        # EXHAUSTIVE, the default, times all algorithms at every new shape: hundreds of ms.
        "cudnn_conv_algo_search": gpu.search,
        # Growing by what was just asked for leaves pieces that the next shape does not fit.
        "arena_extend_strategy": "kNextPowerOfTwo",
        # On a stream of their own, copies raced with the reuse of the arena (onnxruntime #4829).
        "do_copy_in_default_stream": "1",
        # On by default; it rounds to 10 bits, and company then changes answers by 1e-3.
        "use_tf32": "1" if gpu.tf32 else "0",
    }


def _usable(wanted: Provider) -> str:
    """What to ask of ONNX Runtime; raises EngineError when CUDA is wanted and cannot be had."""
    if wanted == "cpu" or (wanted == "auto" and cuda.cuda_version() is None):
        return CPU
    if (problem := cuda.problem()) is None:
        return "cuda"
    if wanted == "cuda":
        raise EngineError(f"CUDA was asked for: {problem}")
    return CPU


def _session(
    path: Path, device: str, gpu: Gpu, canvas: Canvas | None = None
) -> ort.InferenceSession:
    """A session for any shape, or one made for a canvas alone."""
    try:
        if has_external_data(path):
            raise EngineError(
                f"{path} wants weights from other files, which is refused: they could be any. "
                "Save the model as one file"
            )
    except (Malformed, OSError) as exc:
        raise EngineError(f"{path} cannot be read: {exc}") from exc
    options = ort.SessionOptions()
    if canvas is not None:
        sides = {"batch": canvas.rows, "height": canvas.height, "width": canvas.width}
        for name, side in sides.items():
            options.add_free_dimension_override_by_name(name, side)
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.enable_mem_pattern = False  # shapes vary: patterns would only hoard memory
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = _ERRORS_ONLY
    try:
        session = ort.InferenceSession(path, options, providers=_providers(device, gpu))
    except Exception as exc:  # ORT has no base class for its errors
        raise EngineError(f"ONNX Runtime cannot load {path}: {exc}") from exc
    session.disable_fallback()  # to the CPU, in silence, when a run fails on the GPU
    return session


def _providers(device: str, gpu: Gpu) -> list[Any]:
    if device == CPU:
        return [_CPU]
    _preload()
    return [(_CUDA, cuda_options(int(device.partition(":")[2]), gpu)), _CPU]


@cache
def _preload() -> None:
    """Load NVIDIA's libraries from their Python packages, where ONNX Runtime finds none itself."""
    with redirect_stdout(sys.stderr):  # where it prints what it lacks
        ort.preload_dlls()
