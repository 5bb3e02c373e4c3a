"""One artifact, ready to run on ONNX Runtime."""

import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from models.card import Card
from service import cuda
from service.costs import FREE, Canvas, Costs, Line, fit
from service.external import Malformed, has_external_data
from service.images import Pixels

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # only counts before the import below
import onnxruntime as ort

logger = logging.getLogger(__name__)

Provider = Literal["auto", "cpu", "cuda"]
Batching = Literal["equal", "auto", "mixed"]
_CPU, _CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
_ERRORS_ONLY = 3
_MAPS = "cam"
_ABOUT_MAPS = (_MAPS, "cam_classes", "cam_sizes")
# A run's memory, 190 bytes a pixel, stays in ONNX Runtime's arena for the next one: asking the
# system for it anew makes a run 1.4 times as long. After larger runs it is given back at once,
# after those of more than a photo's usual size when there is nothing to do.
_OVERSIZE, _USUAL = 1_100_000, 120_000  # pixels
_OUT_OF_MEMORY = ("Failed to allocate memory", "out of memory", "bad_alloc", "BFCArena")
# (images, side) that are timed when an engine warms up: most where company may pay, thumbnails.
_TIMED = ((1, 32), (1, 64), (1, 128), (1, 320), (4, 32), (4, 48), (4, 64), (16, 48))
_ROUNDS = 3


class EngineError(Exception):
    """An artifact that cannot be loaded or run here; the message says why and what to do."""


class OutOfMemory(EngineError):
    """Memory ran out during a run; with fewer images it may do."""


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


@dataclass(frozen=True, slots=True)
class Maps:
    """Class activation maps of one image: what each place adds to the logits of m classes."""

    classes: NDArray[np.int64]  # (m,)
    values: NDArray[np.float32]  # (m, h', w')


@dataclass(frozen=True, slots=True)
class Scores:
    """What the network says of n images."""

    logits: NDArray[np.float32]  # (n, k)
    probabilities: NDArray[np.float32]  # (n, k)
    embedding: NDArray[np.float32] | None  # (n, f)
    ranking: NDArray[np.int64]  # (n, k), classes, the most probable first, ties by index
    maps: tuple[Maps, ...] | None = None  # of each image, if any was wanted

    @staticmethod
    def joined(parts: "Sequence[Scores]") -> "Scores":
        """The scores of several batches, without their maps."""
        embeddings = [part.embedding for part in parts if part.embedding is not None]
        return Scores(
            np.concatenate([part.logits for part in parts]),
            np.concatenate([part.probabilities for part in parts]),
            np.concatenate(embeddings) if len(embeddings) == len(parts) else None,
            np.concatenate([part.ranking for part in parts]),
        )

    def row(self, index: int) -> "Scores":
        """The scores of one image, as a batch of one."""
        return self.rows(slice(index, index + 1))

    def rows(self, at: slice) -> "Scores":
        """The scores of some images."""
        return Scores(
            self.logits[at],
            self.probabilities[at],
            None if self.embedding is None else self.embedding[at],
            self.ranking[at],
            None if self.maps is None else self.maps[at],
        )


class Engine:
    """Runs one artifact; safe to call from several threads at once.

    provider: what runs it, as ONNX Runtime calls it
    fallback: why that is the CPU although the GPU build of ONNX Runtime is installed

    One session with one thread a run: callers bring the parallelism (one for each core), which on
    a CPU gives the best throughput and is the only arrangement that holds on a busy host.
    """

    def __init__(
        self,
        folder: Path,
        provider: Provider = "auto",
        *,
        batching: Batching = "equal",
        canvases: Sequence[Canvas] = (),
    ) -> None:
        """Load the artifact in `folder`; raises CardError, EngineError.

        batching: whether to load ragged.onnx too, where there is one, to run images of different
        sizes together: never, if measurements say that it pays, or always
        canvases: shapes to pin: a session each, made for that shape alone
        """
        self.card = Card.load(folder / "card.json")
        wanted, provider = provider, _usable(provider)
        self._plain = _session(folder / "model.onnx", provider)
        self.provider: str = self._plain.get_providers()[0]
        self.fallback = _why_not(wanted, self.provider)
        ragged, mixes = folder / "ragged.onnx", self.card.mixed.supported
        self._batching = batching
        self._ragged = _session(ragged, provider) if mixes and batching != "equal" else None
        if canvases and not mixes:
            raise EngineError(f"{self.card.name} takes no canvases: {self.card.mixed.reason}")
        for canvas in canvases:
            self._check_size(canvas.height, canvas.width, self.card.preprocessing.channels)
        self._grown = False  # the arena holds more than usual
        self._pinned = {canvas: _session(ragged, provider, canvas) for canvas in canvases}
        self.costs = Costs(Line(1e-3, 0.3e-6), FREE if self.mixes else None, list(canvases))

    @property
    def device(self) -> str:
        """What computes: "cpu", which decodes as well, or a device of its own."""
        return "cpu" if self.provider == _CPU else self.provider

    @property
    def mixes(self) -> bool:
        """Whether images of different sizes may share a run."""
        return self._ragged is not None

    def run(
        self,
        pictures: Sequence[Pixels],
        stop: Stop | None = None,
        canvas: Canvas | None = None,
        classes: Sequence[Sequence[int]] = (),
    ) -> Scores:
        """Scores of n images, each uint8 (h, w, c), of one size unless `mixes` or on a `canvas`.

        classes: for each image those whose maps are wanted; -1-j is the j-th most probable one.
        Sizes below the card's never reach ONNX Runtime, which could die of them. Raises
        EngineError, OutOfMemory.
        """
        for picture in pictures:
            self._check_size(*picture.shape)
        try:
            if canvas is not None:
                return self._run_pinned(pictures, stop, canvas, classes)
            if len({picture.shape for picture in pictures}) == 1:
                return self._run(self._plain, {"pixels": np.stack(pictures)}, stop, classes)
            if self._ragged is not None:
                return self._run(self._ragged, on_canvas(pictures), stop, classes)
        except MemoryError as exc:
            raise OutOfMemory(f"no memory for {len(pictures)} images: {exc}") from exc
        raise EngineError(f"{len(pictures)} images of different sizes, or none, in one run")

    def run_canvas(
        self,
        pixels: NDArray[np.uint8],
        sizes: NDArray[np.int64],
        classes: Sequence[Sequence[int]] = (),
    ) -> Scores:
        """Scores of images on a canvas (n, H, W, c), top left, with sizes (n, 2) as (h, w).

        What the canvas holds outside the images does not matter. Raises EngineError.
        """
        if self._ragged is None:
            raise EngineError("this artifact cannot run images of different sizes together")
        for canvas, (h, w) in zip(pixels, sizes, strict=True):
            self._check_size(*canvas[:h, :w].shape)
        return self._run(self._ragged, {"pixels": pixels, "sizes": sizes}, None, classes)

    def warm_up(self) -> None:
        """Run a grid of shapes, so that no client waits for a first run, and learn what runs cost.

        With batching "auto" ragged.onnx is let go again where, as measured, it can not pay.
        """
        plain = fit(self._timed(n, side, side) for n, side in _TIMED)
        ragged, step = None, self.card.limits.multiple
        if self._ragged is not None:
            ragged = fit(self._timed(n, side, side + step) for n, side in _TIMED if n > 1)
            pays = any(ragged.seconds(n * s * s) < n * plain.seconds(s * s) for n, s in _TIMED)
            if self._batching == "mixed":
                ragged = FREE
            elif not pays:
                self._ragged = ragged = None
        small = [self._blank(*self.card.limits.smallest())]
        timed = {
            replace(canvas, seconds=_seconds(partial(self.run, small, None, canvas))): session
            for canvas, session in list(self._pinned.items())
        }
        self._pinned |= timed
        self.costs = Costs(plain, ragged, sorted(timed, key=lambda canvas: canvas.seconds))

    def give_back_memory(self) -> None:
        """Let go of what large runs have left, by a small run; for when there is nothing to do.

        Pinned canvases keep theirs: each takes the same every time.
        """
        if not self._grown:
            return
        self._grown = False
        pictures = [self._blank(0, 0)]
        shrink = Stop()
        _shrink(shrink.options)
        self.run(pictures, shrink)
        if self._ragged is not None:
            self._run(self._ragged, on_canvas(pictures), shrink)

    def _timed(self, n: int, height: int, width: int) -> tuple[int, float]:
        """Pixels and seconds of a run of n images, mixed if they are not square."""
        tall, wide = self._blank(height, height), self._blank(height, width)
        pictures = [*[tall] * (n - 1), wide]
        return n * wide.shape[0] * wide.shape[1], _seconds(partial(self.run, pictures))

    def _blank(self, height: int, width: int) -> Pixels:
        """A black image of about that size, as the network takes it."""
        limits, step = self.card.limits, self.card.limits.multiple
        sides = max(height, limits.min_height), max(width, limits.min_width)
        h, w = (-(-side // step) * step for side in sides)
        return np.zeros((h, w, self.card.preprocessing.channels), np.uint8)

    def _check_size(self, h: int, w: int, c: int) -> None:
        limits, channels = self.card.limits, self.card.preprocessing.channels
        if c != channels or not limits.allow(h, w):
            raise EngineError(
                f"{h}×{w}×{c} cannot run: the network takes at least "
                f"{limits.min_height}×{limits.min_width} pixels of {channels} channels, "
                f"sides divisible by {limits.multiple}"
            )

    def _run_pinned(
        self,
        pictures: Sequence[Pixels],
        stop: Stop | None,
        canvas: Canvas,
        classes: Sequence[Sequence[int]],
    ) -> Scores:
        """Rows that are not used hold an image of the smallest size."""
        if canvas not in self._pinned:
            raise EngineError(f"no session was made for {canvas}")
        n = len(pictures)
        smallest = self.card.limits.smallest()
        pixels = np.zeros(
            (canvas.rows, canvas.height, canvas.width, self.card.preprocessing.channels), np.uint8
        )
        sizes = np.array([*(p.shape[:2] for p in pictures), *[smallest] * (canvas.rows - n)])
        if len(sizes) > canvas.rows or (sizes.max(0) > (canvas.height, canvas.width)).any():
            raise EngineError(f"{n} images up to {sizes.max(0)} do not fit {canvas}")
        lay(pictures, pixels[:n])
        session = self._pinned[canvas]
        scores = self._run(session, {"pixels": pixels, "sizes": sizes}, stop, classes, keep=True)
        return scores.rows(slice(0, n))

    def _run(
        self,
        session: ort.InferenceSession,
        feed: dict[str, NDArray[Any]],
        stop: Stop | None = None,
        classes: Sequence[Sequence[int]] = (),
        *,
        keep: bool = False,
    ) -> Scores:
        """keep: what the run takes is kept for the next one, however large."""
        n, height, width, _ = feed["pixels"].shape
        names = [name for name in self.card.outputs if name != _MAPS]
        options = (stop or Stop()).options
        if _MAPS in self.card.outputs:
            feed = feed | {"classes": _rows(classes, n)}
            if any(classes):
                names += [o.name for o in session.get_outputs() if o.name in _ABOUT_MAPS]
        if self.device == "cpu" and not keep:
            if n * height * width > _OVERSIZE:
                _shrink(options)
            self._grown = self._grown or n * height * width > _USUAL
        try:
            arrays = dict(zip(names, session.run(names, feed, options), strict=True))
        except MemoryError:
            raise
        except Exception as exc:  # ORT has no base class for its errors
            shape = "×".join(str(side) for side in feed["pixels"].shape)
            memory = any(text in str(exc) for text in _OUT_OF_MEMORY)
            kind = OutOfMemory if memory else EngineError
            raise kind(f"ONNX Runtime failed on {shape}: {exc}") from exc
        probabilities = arrays["probabilities"]
        ranking = np.argsort(-probabilities, axis=1, kind="stable")  # here, off the event loop
        maps = tuple(_maps(arrays, classes)) if _MAPS in arrays else None
        return Scores(arrays["logits"], probabilities, arrays.get("embedding"), ranking, maps)


def _rows(classes: Sequence[Sequence[int]], n: int) -> NDArray[np.int64]:
    """Classes wanted of n images as one array (n, m), rows filled up with -1; m is 0 for none."""
    rows = np.full((n, max(map(len, classes), default=0)), -1, np.int64)
    for row, wanted in zip(rows, classes, strict=False):
        row[: len(wanted)] = wanted
    return rows


def _maps(arrays: dict[str, NDArray[Any]], classes: Sequence[Sequence[int]]) -> Iterator[Maps]:
    """Of each image the maps it asked for, cut to its own size."""
    everywhere = arrays["cam"].shape[2:]
    for image, wanted in enumerate(classes):
        h, w = arrays["cam_sizes"][image] if "cam_sizes" in arrays else everywhere
        found = arrays["cam_classes"][image, : len(wanted)]
        yield Maps(found, arrays["cam"][image, : len(wanted), :h, :w])


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


def _shrink(options: ort.RunOptions) -> None:
    options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")


def _seconds(run: Callable[[], object]) -> float:
    """The shortest of a few runs: others may disturb one, but none makes it faster."""
    run()
    seconds = []
    for _ in range(_ROUNDS):
        begun = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - begun)
    return min(seconds)


def _session(path: Path, provider: Provider, canvas: Canvas | None = None) -> ort.InferenceSession:
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
        session = ort.InferenceSession(path, options, providers=_providers(provider))
    except Exception as exc:  # ORT has no base class for its errors
        raise EngineError(f"ONNX Runtime cannot load {path}: {exc}") from exc
    session.disable_fallback()  # to the CPU, in silence, when a run fails on the GPU
    return session


def _usable(wanted: Provider) -> Provider:
    """What to ask of ONNX Runtime; raises EngineError when CUDA is wanted and cannot be had."""
    if wanted == "cpu" or (wanted == "auto" and cuda.cuda_version() is None):
        return "cpu"
    if (problem := cuda.problem()) is None:
        return "cuda"
    if wanted == "cuda":
        raise EngineError(f"CUDA was asked for: {problem}")
    return "cpu"


def _why_not(wanted: Provider, got: str) -> str | None:
    """Why it is not the GPU, where it could be; raises EngineError when that was asked for."""
    if wanted == "cpu" or got == _CUDA or cuda.cuda_version() is None:
        return None
    problem = cuda.problem() or "ONNX Runtime could not load CUDA; its own messages say why"
    if wanted == "cuda":
        raise EngineError(f"CUDA was asked for: {problem}")
    logger.warning("no usable GPU, running on the CPU: %s", problem)
    return problem


def _providers(wanted: Provider) -> list[str]:
    if wanted == "cpu":
        return [_CPU]
    _preload()
    return [_CUDA, _CPU]


@cache
def _preload() -> None:
    """Load NVIDIA's libraries from their Python packages, where ONNX Runtime finds none itself."""
    with redirect_stdout(sys.stderr):  # where it prints what it lacks
        ort.preload_dlls()
