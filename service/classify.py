"""The main path, free of HTTP: files in, one outcome for each, in order.

bytes -> header -> resize policy -> admitted -> decode -> infer -> top-k
"""

import asyncio
import math
import time
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from functools import partial

from models.card import Card, Policy
from service.engine import Engine
from service.errors import AnypoolError, BadParameter, InferenceFailed, TooManyPixels
from service.heat import Form, HeatMap, heat_maps
from service.images import Pixels, SourceLimits, decode, decode_seconds, read_header
from service.keys import Client
from service.outcome import Outcome, Prediction, Result, check_all
from service.resize import InferenceLimits, Resize, Size, Wish, choose, whole_size
from service.scheduler import Scheduler
from service.scores import Scores
from service.sessions import CPU
from service.threads import parsed
from service.work import Cost, Phase, Undecoded, inference_cost

# A decode that predictably takes less, in seconds or as a part of the inference, is not worth a
# turn of its own: the worker that runs the image decodes it too.
_CHEAP_S, _CHEAP_PART = 0.5e-3, 0.1
_TOP_K, _MOST = 5, 100  # classes answered unless top_k says how many: the most probable, all likely
_MOST_MAPS = 100  # of one image
_NATIVE = Resize("native", None)
# Of one request. Values: as text 10 MB, which take 0.3 s to write. Weights: 80 MB.
_MOST_MAP_VALUES, _MOST_MAP_WEIGHTS = 500_000, 20_000_000


@dataclass(frozen=True, slots=True)
class Picture:
    """An image file as it came; `name` is what the client calls it, if anything."""

    name: str | None
    data: bytes


@dataclass(frozen=True, slots=True)
class Raster:
    """An image that is decoded already: uint8 (h, w, c), for the network as it is."""

    pixels: Pixels
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Options:
    """What a client may ask for; None leaves it to the card or the settings."""

    top_k: int | None = None
    policy: Wish | None = None
    size: int | None = None
    timeout_s: float | None = None
    classes: tuple[int, ...] | None = None
    min_probability: float | None = None
    embedding: bool = False
    maps: Form | None = None
    map_classes: tuple[int, ...] | None = None  # whose maps; None: of the classes answered
    threshold: float | None = None  # all classes from this probability up
    whole: bool = False  # one image that is refused refuses the request

    @property
    def most(self) -> int:
        """How many classes to answer, at most."""
        return self.top_k or (_TOP_K if self.threshold is None else _MOST)

    @property
    def least(self) -> float:
        """How probable a class must be to be answered."""
        asked = (self.min_probability, self.threshold)
        return max((p for p in asked if p is not None), default=-math.inf)


@dataclass(frozen=True, slots=True)
class _Admitted:
    source: Size
    used: Size
    policy: Policy
    image: Pixels | Undecoded
    costs: Sequence[Cost]  # of the decode, if there is one, and of the inference

    @property
    def cheap(self) -> bool:
        """Whether its decode needs no turn of its own."""
        decoding = sum(cost.seconds for cost in self.costs[:-1])
        return decoding < max(_CHEAP_S, _CHEAP_PART * self.costs[-1].seconds)


class Classifier:
    """Classifies pictures with an engine, under limits, on a scheduler."""

    def __init__(
        self,
        scheduler: Scheduler,
        source: SourceLimits,
        inference: InferenceLimits,
        formats: tuple[str, ...],
        deadline_s: float,
    ) -> None:
        self._scheduler = scheduler
        self._source = source
        self._inference = inference
        self._formats = formats
        self._deadline_s = deadline_s

    async def classify(
        self,
        engine: Engine,
        pictures: Sequence[Picture | Raster],
        options: Options,
        client: Client | None = None,
    ) -> list[Outcome]:
        """One outcome for each picture, in order.

        client: whose share and budget these come out of; None when there are no keys
        Raises only what concerns the request as a whole: BadParameter, Overloaded, RateLimited,
        TooManyPixels; with the option `whole` also what is wrong with one image, before anything
        is run.
        """
        card = engine.card
        if options.threshold is not None and card.activation != "sigmoid":
            raise BadParameter(
                "threshold is for models whose classes do not exclude each other; "
                "use min_probability"
            )
        own = card.preprocessing
        default = Resize(own.policy, own.size, own.crop)
        resize = choose(options.policy, options.size, default, self._inference)
        for name, asked in (("classes", options.classes), ("cam_classes", options.map_classes)):
            if wrong := [c for c in asked or () if not 0 <= c < len(card.labels)]:
                last = len(card.labels) - 1
                raise BadParameter(f"{name}={wrong[0]}: the classes are 0 to {last}")
        mapped = _mapped(card, options)
        arrived = time.monotonic()
        size = sum(len(p.data) for p in pictures if isinstance(p, Picture))
        headers = await parsed(partial(self._headers, engine, pictures, resize), size)
        if options.whole:
            check_all(headers)
        admitted = [header for header in headers if isinstance(header, _Admitted)]
        pixels = sum(header.used.pixels for header in admitted)
        _check_maps(card, len(mapped), len(admitted), pixels)
        costs = [cost for header in admitted for cost in header.costs]
        whose = None if client is None else client.name
        with self._scheduler.admit(pixels, costs, whose):
            if client is not None and client.budget is not None:
                client.budget.spend(pixels)  # here, so that what is refused with 503 costs nothing
            jobs = [
                self._one(engine, picture.name, header, options, mapped, arrived, whose)
                for picture, header in zip(pictures, headers, strict=True)
            ]
            return await _gather(jobs)

    def _headers(
        self, engine: Engine, pictures: Sequence[Picture | Raster], resize: Resize
    ) -> list[_Admitted | AnypoolError]:
        return [self._header(engine, picture, resize) for picture in pictures]

    def _header(
        self, engine: Engine, picture: Picture | Raster, resize: Resize
    ) -> _Admitted | AnypoolError:
        try:
            if isinstance(picture, Raster):
                return self._raster(engine, picture)
            return self._picture(engine, picture, resize)
        except AnypoolError as exc:
            return exc.bare()

    def _picture(self, engine: Engine, picture: Picture, resize: Resize) -> _Admitted:
        card = engine.card
        header = read_header(picture.data, self._source, self._formats)
        whole = whole_size(header.size, resize, card.limits, self._inference)
        used, exact = resize.seen(whole), whole if resize.exact else None
        cost = Cost(header.format, decode_seconds(header, used, exact))
        work = partial(decode, picture.data, header, used, card.preprocessing, exact)
        image = Undecoded(work, used.height, used.width, cost)
        costs = cost, inference_cost(engine, used.pixels)
        return _Admitted(header.size, used, resize.policy, image, costs)

    def _raster(self, engine: Engine, raster: Raster) -> _Admitted:
        height, width, _ = raster.pixels.shape
        size = whole_size(Size(width, height), _NATIVE, engine.card.limits, self._inference)
        costs = (inference_cost(engine, size.pixels),)
        return _Admitted(size, size, _NATIVE.policy, raster.pixels, costs)

    async def _one(
        self,
        engine: Engine,
        name: str | None,
        admitted: _Admitted | AnypoolError,
        options: Options,
        mapped: Sequence[int],
        arrived: float,
        client: str | None,
    ) -> Outcome:
        if isinstance(admitted, AnypoolError):
            return Outcome(name, error=admitted)
        deadline = arrived + (options.timeout_s or self._deadline_s)
        ready, phases = admitted.image, list[Phase]()
        try:
            if isinstance(ready, Undecoded) and not (admitted.cheap and engine.devices == (CPU,)):
                decoded = await self._scheduler.decode(
                    ready.decode, ready.cost, arrived, deadline, client, phases
                )
                ready = decoded.value
            scored = await self._scheduler.infer(
                engine, ready, arrived, deadline, mapped, client, phases
            )
            best = predictions(engine.card, scored.value, options)
            maps = await _drawn(scored.value, options, best)
        except AnypoolError as exc:
            return Outcome(name, None, exc.bare(), admitted.used.pixels, phases)
        result = Result(
            source=admitted.source,
            used=admitted.used,
            policy=admitted.policy,
            predictions=best,
            scores=scored.value,
            embedding=_embedding(scored.value) if options.embedding else None,
            maps=maps,
        )
        return Outcome(name, result, None, admitted.used.pixels, phases)


def predictions(card: Card, scores: Scores, options: Options) -> list[Prediction]:
    """The most probable classes first, ties by index: of `classes`, as many and as probable as
    the options say."""
    probabilities = scores.probabilities[0]  # (k,)
    best: list[int] = scores.ranking[0, : None if options.classes else options.most].tolist()
    if options.classes is not None:
        best = [index for index in best if index in options.classes][: options.most]
    return [
        Prediction(i, card.labels[i].id, card.labels[i].name, float(probabilities[i]))
        for i in best
        if probabilities[i] >= options.least
    ]


def _mapped(card: Card, options: Options) -> tuple[int, ...]:
    """The classes whose maps are to be computed, -1-j for the j-th most probable one."""
    if options.maps is None:
        return ()
    named = options.map_classes or options.classes
    if named is None:
        return tuple(range(-1, -1 - min(options.most, len(card.labels)), -1))
    distinct = tuple(dict.fromkeys(named))
    if len(distinct) > _MOST_MAPS:
        raise BadParameter(
            f"maps of {len(distinct)} classes, at most {_MOST_MAPS}: name fewer in cam_classes"
        )
    return distinct


def _check_maps(card: Card, count: int, images: int, pixels: int) -> None:
    """Raise TooManyPixels when the maps of a request, `count` an image, would cost too much."""
    if card.map_stride is None or not count:
        return
    values = count * pixels / card.map_stride**2
    weights = count * images * (card.embedding_size or 0)  # that make them
    if values > _MOST_MAP_VALUES or weights > _MOST_MAP_WEIGHTS:
        raise TooManyPixels(
            f"the request's {count * images} class activation maps would have {values / 1e6:.1f} "
            f"million values, made with {weights / 1e6:.1f} million weights; at most "
            f"{_MOST_MAP_VALUES / 1e6:g} and {_MOST_MAP_WEIGHTS / 1e6:g}: ask for fewer classes "
            "(cam_classes, top_k), smaller images, or fewer at once"
        )


async def _drawn(
    scores: Scores, options: Options, best: Sequence[Prediction]
) -> list[HeatMap] | None:
    """The maps that were asked for, as they were asked for."""
    if options.maps is None or scores.maps is None:
        return None
    maps = scores.maps[0]
    classes = options.map_classes or [prediction.index for prediction in best]
    try:
        return await asyncio.to_thread(heat_maps, maps, classes, options.maps)
    except KeyError as exc:  # two classes as probable, and the device ranks them otherwise
        raise InferenceFailed(f"no map was made of class {exc}: name it in cam_classes") from exc


def _embedding(scores: Scores) -> list[float] | None:
    return None if scores.embedding is None else [float(x) for x in scores.embedding[0]]


async def _gather(jobs: Sequence[Coroutine[None, None, Outcome]]) -> list[Outcome]:
    """All outcomes in order; if this is cancelled or one fails in a way nobody foresaw, all end."""
    if len(jobs) == 1:
        return [await jobs[0]]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(job) for job in jobs]
    return [task.result() for task in tasks]
