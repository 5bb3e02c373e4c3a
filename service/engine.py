"""One artifact, ready to run on ONNX Runtime."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from models.card import Card
from service import sessions
from service.costs import FREE, Canvas, Costs, Line, fit
from service.failures import EngineError, OutOfMemory, kind_of
from service.images import Pixels
from service.scores import Scores, class_rows, maps_of
from service.sessions import CPU, Gpu, Provider, Sessions, Stop

if TYPE_CHECKING:
    from service.tuning import Tuning

Batching = Literal["equal", "auto", "mixed"]
_MAPS = "cam"
_ABOUT_MAPS = (_MAPS, "cam_classes", "cam_sizes")
# A run's memory, 190 bytes a pixel, stays in ONNX Runtime's arena for the next one: asking the
# system for it anew makes a run 1.4 times as long. After larger runs it is given back at once,
# after those of more than a photo's usual size when there is nothing to do. A GPU has more, and
# nothing else to do with it: only runs above the usual limit of a batch count there.
_OVERSIZE, _USUAL, _OVERSIZE_GPU = 1_100_000, 120_000, 2_100_000  # pixels
# (images, side) that are timed when an engine warms up: most where company may pay, thumbnails.
_TIMED = ((1, 32), (1, 64), (1, 128), (1, 320), (4, 32), (4, 48), (4, 64), (16, 48))
_ROUNDS = 3


class Engine:
    """Runs one artifact; safe to call from several threads at once.

    devices: what computes: "cpu", which decodes as well, or GPUs, cuda:0 and on
    provider: what runs it, as ONNX Runtime calls it
    fallback: why that is the CPU although the GPU build of ONNX Runtime is installed

    On each device one session with one thread a run: callers bring the parallelism (one for each
    core), which on a CPU gives the best throughput and is the only arrangement that holds on a
    busy host.
    """

    def __init__(
        self,
        folder: Path,
        provider: Provider = "auto",
        *,
        batching: Batching = "equal",
        canvases: Sequence[Canvas] = (),
        gpu: Gpu = Gpu(),  # noqa: B008  # frozen
    ) -> None:
        """Load the artifact in `folder`; raises CardError, EngineError.

        batching: whether to load ragged.onnx too, where there is one, to run images of different
        sizes together: never, if measurements say that it pays, or always
        canvases: shapes to pin: a session each, made for that shape alone
        gpu: which GPUs, where there are any, and how they are used
        """
        self.card = Card.load(folder / "card.json")
        mixes = self.card.mixed.supported
        if canvases and not mixes:
            raise EngineError(f"{self.card.name} takes no canvases: {self.card.mixed.reason}")
        for canvas in canvases:
            self._check_size(canvas.height, canvas.width, self.card.preprocessing.channels)
        self._batching = batching
        load = partial(
            Sessions, folder, gpu=gpu, canvases=canvases, mixes=mixes and batching != "equal"
        )
        self._on = {device: load(device) for device in sessions.devices(provider, gpu)}
        if any(on.fell_back for on in self._on.values()):
            self._on = {CPU: load(CPU)}
        self.devices = tuple(self._on)
        self.fallback = sessions.why_not(provider, self.devices)
        self._first = self._on[self.devices[0]]
        self.provider = self._first.provider
        self.tuning: Tuning | None = None  # what tuning.json has changed, if it counts here
        self._grown = False  # the arena holds more than usual
        self.costs = Costs(Line(1e-3, 0.3e-6), FREE if self.mixes else None, list(canvases))

    @property
    def mixes(self) -> bool:
        """Whether images of different sizes may share a run."""
        return self._first.ragged is not None

    def run(
        self,
        pictures: Sequence[Pixels],
        stop: Stop | None = None,
        canvas: Canvas | None = None,
        classes: Sequence[Sequence[int]] = (),
        device: str | None = None,
    ) -> Scores:
        """Scores of n images, each uint8 (h, w, c), of one size unless `mixes` or on a `canvas`.

        classes: for each image those whose maps are wanted; -1-j is the j-th most probable one.
        device: one of `devices`; None is the first
        Sizes below the card's never reach ONNX Runtime, which could die of them. Raises
        EngineError, OutOfMemory, DeviceLost.
        """
        device = device or self.devices[0]
        on = self._on[device]
        for picture in pictures:
            self._check_size(*picture.shape)
        try:
            if canvas is not None:
                return self._run_pinned(pictures, stop, canvas, classes, device)
            if len({picture.shape for picture in pictures}) == 1:
                alike = {"pixels": np.stack(pictures)}
                return self._run(on.plain, alike, stop, classes, device=device)
            if on.ragged is not None:
                return self._run(on.ragged, on_canvas(pictures), stop, classes, device=device)
        except MemoryError as exc:
            raise OutOfMemory(f"no memory for {len(pictures)} images: {exc}") from exc
        raise EngineError(f"{len(pictures)} images of different sizes, or none, in one run")

    def run_canvas(
        self,
        pixels: NDArray[np.uint8],
        sizes: NDArray[np.int64],
        classes: Sequence[Sequence[int]] = (),
        device: str | None = None,
    ) -> Scores:
        """Scores of images on a canvas (n, H, W, c), top left, with sizes (n, 2) as (h, w).

        What the canvas holds outside the images does not matter. Raises EngineError.
        """
        device = device or self.devices[0]
        if (ragged := self._on[device].ragged) is None:
            raise EngineError("this artifact cannot run images of different sizes together")
        for canvas, (h, w) in zip(pixels, sizes, strict=True):
            self._check_size(*canvas[:h, :w].shape)
        feed: dict[str, NDArray[Any]] = {"pixels": pixels, "sizes": sizes}
        return self._run(ragged, feed, None, classes, device=device)

    def warm_up(self) -> None:
        """Run a grid of shapes, so that no client waits for a first run, and learn what runs cost.

        That is measured on the first device: several GPUs are taken to be of one kind.

        With batching "auto" ragged.onnx is let go again where, as measured, it can not pay.
        """
        plain = fit(self._timed(n, side, side) for n, side in _TIMED)
        ragged, step = None, self.card.limits.multiple
        if self._first.ragged is not None:
            ragged = fit(self._timed(n, side, side + step) for n, side in _TIMED if n > 1)
            pays = any(ragged.seconds(n * s * s) < n * plain.seconds(s * s) for n, s in _TIMED)
            if self._batching == "mixed":
                ragged = FREE
            elif not pays:
                ragged = None
                for on in self._on.values():
                    on.ragged = None
        timed = self._timed_canvases()
        self.costs = Costs(plain, ragged, sorted(timed, key=lambda canvas: canvas.seconds))
        for device in self.devices[1:]:
            for side in sorted({side for _, side in _TIMED}):
                self.run([self._blank(side, side)], device=device)

    def give_back_memory(self) -> None:
        """Let go of what large runs have left, by a small run; for when there is nothing to do.

        Pinned canvases keep theirs: each takes the same every time.
        """
        if not self._grown:
            return
        self._grown = False
        pictures = [self._blank(0, 0)]
        shrink = Stop()
        shrink.shrink(CPU)
        self.run(pictures, shrink)
        if self._first.ragged is not None:
            self._run(self._first.ragged, on_canvas(pictures), shrink, device=CPU)

    def _timed_canvases(self) -> list[Canvas]:
        """The pinned canvases and what they take, run once on every device."""
        small = [self._blank(*self.card.limits.smallest())]
        timed = []
        for canvas in list(self._first.pinned):
            known = replace(canvas, seconds=_seconds(partial(self.run, small, None, canvas)))
            for on in self._on.values():
                on.pinned[known] = on.pinned[canvas]
            for device in self.devices[1:]:
                self.run(small, canvas=known, device=device)
            timed.append(known)
        return timed

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
        device: str,
    ) -> Scores:
        """Rows that are not used hold an image of the smallest size."""
        session = self._on[device].pinned.get(canvas)
        if session is None:
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
        feed = {"pixels": pixels, "sizes": sizes}
        scores = self._run(session, feed, stop, classes, device=device, keep=True)
        return scores.rows(slice(0, n))

    def _run(
        self,
        session: Any,
        feed: dict[str, NDArray[Any]],
        stop: Stop | None = None,
        classes: Sequence[Sequence[int]] = (),
        *,
        device: str,
        keep: bool = False,
    ) -> Scores:
        """keep: what the run takes is kept for the next one, however large."""
        n, height, width, _ = feed["pixels"].shape
        names = [name for name in self.card.outputs if name != _MAPS]
        stop = stop or Stop()
        if _MAPS in self.card.outputs:
            feed = feed | {"classes": class_rows(classes, n)}
            if any(classes):
                names += [o.name for o in session.get_outputs() if o.name in _ABOUT_MAPS]
        if n * height * width > (_OVERSIZE if device == CPU else _OVERSIZE_GPU) and not keep:
            stop.shrink(device)
        if device == CPU and not keep:
            self._grown = self._grown or n * height * width > _USUAL
        try:
            arrays = dict(zip(names, session.run(names, feed, stop.options), strict=True))
        except MemoryError:
            raise
        except Exception as exc:  # ORT has no base class for its errors
            shape = "×".join(str(side) for side in feed["pixels"].shape)
            raise kind_of(str(exc))(f"ONNX Runtime failed on {shape}: {exc}") from exc
        probabilities = arrays["probabilities"]
        if not np.isfinite(probabilities).all():  # of one image perhaps: halves will show which
            raise EngineError(
                "the network's probabilities are no numbers (NaN): its weights are broken, or in "
                "16 bits too large; run anypool verify"
            )
        ranking = np.argsort(-probabilities, axis=1, kind="stable")  # here, off the event loop
        maps = tuple(maps_of(arrays, classes)) if _MAPS in arrays else None
        return Scores(arrays["logits"], probabilities, arrays.get("embedding"), ranking, maps)


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


def _seconds(run: Callable[[], object]) -> float:
    """The shortest of a few runs: others may disturb one, but none makes it faster."""
    run()
    seconds = []
    for _ in range(_ROUNDS):
        begun = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - begun)
    return min(seconds)
