"""START HERE. Joins the parts into an application; the only place that knows them all.

A request goes through api/v1.py or api/v2.py (HTTP) to classify.py (what to do), scheduler.py
(when), images.py (decode) and engine.py (infer).
"""

import asyncio
import logging
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from service.api import errors, openapi, ops, v1, v2
from service.api.deps import Service
from service.api.envelope import Envelope
from service.api.gate import Gate
from service.api.playground import playground
from service.classify import Classifier
from service.failures import DeviceLost
from service.folders import StoreError, read_canvases
from service.images import SourceLimits, allowed_formats
from service.keys import Keys, load_keys
from service.metrics import Metrics
from service.resize import InferenceLimits
from service.scheduler import Limits, Observer, Scheduler
from service.sessions import Gpu
from service.settings import MEGA, Settings
from service.shares import Shares
from service.statistics import Statistics
from service.store import Store
from service.tuning import tuned
from service.version import version
from service.workers import Place, share, take_place

if TYPE_CHECKING:
    from service.traces import Traces

logger = logging.getLogger(__name__)

_WATCH_S = 1.0
_LOOK_S = 0.02
_HANG_S = 3.0  # for a run that was told to stop; then the process is replaced
_HUNG = 70  # exit code
_IDLE_S = 5.0  # without work; then memory that large images took is given back


def create_classifier(settings: Settings, scheduler: Scheduler) -> Classifier:
    """The main path under the limits of `settings`; the server and `anypool classify` share it."""
    return Classifier(
        scheduler,
        SourceLimits(
            int(settings.max_source_megapixels * MEGA),
            settings.max_source_side,
            settings.max_aspect,
        ),
        InferenceLimits(settings.max_side, int(settings.max_megapixels * MEGA)),
        allowed_formats(),
        settings.deadline_s,
    )


def create_scheduler(settings: Settings, observer: Observer | None = None) -> Scheduler:
    """Workers, queue and batches as `settings` say."""
    limits = Limits(
        queue_pixels=int(settings.queue_megapixels * MEGA),
        batch_pixels=int(settings.batch_megapixels * MEGA),
        running_pixels=settings.running_pixels,
        run_s=settings.run_limit_s,
    )
    return Scheduler(settings.cores, limits, observer)


def create_store(
    settings: Settings,
    place: Place | None = None,
    explicit: frozenset[str] = frozenset(),
) -> Store:
    """The artifacts and how to run them, as `settings` say; raises StoreError.

    explicit: those of them that an operator has chosen
    """
    canvases = None
    if settings.canvases is not None:
        canvases = read_canvases(settings.canvases)
    return Store(
        settings.artifacts,
        settings.provider,
        settings.model,
        batching=settings.batching,
        canvases=canvases,
        gpu=Gpu(settings.numbers_of_devices, settings.tf32),
        verify=settings.verify,
        explicit=explicit,
        trial=True,
        note=None if place is None else place.note,
    )


def create_keys(settings: Settings, place: Place | None = None) -> Keys | None:
    """Whose keys are let in, None for everybody; raises KeysError."""
    if settings.api_keys_file is None:
        return None
    return load_keys(settings.api_keys_file, None if place is None else place.number)


def create_traces(settings: Settings) -> "Traces | None":
    """Where traces go, if anywhere; only then OpenTelemetry is imported."""
    if settings.otel_endpoint is None:
        return None
    from service.traces import Traces

    return Traces(settings.otel_endpoint)


def create_worker() -> FastAPI:
    """The application of one worker process, as the supervisor starts it."""
    return create_app(place=take_place())


def create_app(settings: Settings | None = None, place: Place | None = None) -> FastAPI:
    """The application; without `settings` they come from the environment (ANYPOOL_*).

    place: of this process under the supervisor
    """
    settings = settings or Settings()
    explicit = frozenset(settings.model_fields_set)
    settings = tuned(settings)
    if place is not None:
        settings = share(settings, place.index)
    among = place if settings.workers > 1 else None  # others
    metrics = Metrics(among)
    scheduler = create_scheduler(settings, metrics)
    metrics.watch(scheduler)
    store = create_store(settings, place, explicit)
    metrics.watch_models(store)
    bodies = Shares(settings.bodies_bytes)
    metrics.watch_bodies(bodies)
    parts = Service(
        settings=settings,
        store=store,
        scheduler=scheduler,
        classifier=create_classifier(settings, scheduler),
        metrics=metrics,
        statistics=Statistics(among),
        traces=create_traces(settings),
        bodies=bodies,
        keys=create_keys(settings, among),
        place=place,
    )
    metrics.watch_readiness(parts.is_ready)
    app = FastAPI(
        title="anypool",
        summary="Classify images of any resolution; batches of mixed sizes answer exactly.",
        version=version(),
        description=openapi.ABOUT,
        license_info={"name": "Apache 2.0", "identifier": "Apache-2.0"},
        lifespan=_lifespan,
        redirect_slashes=False,
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
        redoc_url=None,
        swagger_ui_oauth2_redirect_url=None,
    )
    app.state.service = parts
    app.add_middleware(Gate, parts=parts)
    if settings.origins:  # outside of the gate: a browser asks first, and without a key
        app.add_middleware(CORSMiddleware, **_cors(settings.origins))
    app.add_middleware(Envelope, parts=parts)
    errors.install(app)
    app.include_router(v1.router)
    app.include_router(v2.router)
    if settings.playground:  # before ops, which has another answer at /
        app.include_router(playground())
    app.include_router(ops.router)
    openapi.describe(app)
    return app


def _cors(origins: list[str]) -> dict[str, Any]:
    return {
        "allow_origins": origins,
        "allow_methods": ["GET", "POST"],
        "allow_headers": [
            "Authorization",
            "Content-Encoding",
            "Content-Type",
            "Inference-Header-Content-Length",
            "X-API-Key",
            "X-Request-Id",
            "traceparent",
            "tracestate",
        ],
        "expose_headers": [
            "Inference-Header-Content-Length",
            "Retry-After",
            "Server-Timing",
            "X-Request-Id",
        ],
    }


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    parts: Service = app.state.service
    loading = asyncio.create_task(_load(parts))
    watches = [_end_with_parent(parts.place), _end_hung(parts), _tidy_when_idle(parts)]
    if parts.settings.workers > 1:
        watches.append(_publish(parts))
    if parts.settings.watch_s:
        watches.append(_follow_the_disk(parts))
    watching = [asyncio.create_task(watch) for watch in watches]
    _drain_on_signal(parts)
    if parts.place is not None and not parts.place.first:
        await _ready(parts)
    try:
        yield
    finally:
        loading.cancel()
        for task in watching:
            task.cancel()
        parts.scheduler.close()
        parts.close_store()
        parts.statistics.publish()
        parts.metrics.close()
        await _send_traces(parts)


async def _send_traces(parts: Service) -> None:
    if parts.traces is not None:
        await asyncio.to_thread(parts.traces.close)


async def _load(parts: Service) -> None:
    try:
        await parts.with_store(parts.store.load)
    except StoreError as exc:
        parts.problem = str(exc)
        logger.error("not ready: %s", exc)
        return
    except DeviceLost as exc:
        parts.problem = f"a GPU is lost, and the service restarts: {exc}"
        logger.critical("not ready, replacing the process: %s", exc)
        await asyncio.sleep(_HANG_S)  # so that it can be read why
        os._exit(_HUNG)
    except Exception:
        parts.problem = "an error that nobody foresaw; the service's log has it"
        logger.exception("not ready")
        return
    logger.info("ready")


async def _ready(parts: Service) -> None:
    """Return when images can be classified: until then the other workers take all requests."""
    while not (parts.is_ready() or parts.draining):
        await asyncio.sleep(_LOOK_S)
        if parts.problem is not None:
            parts.problem = None
            await asyncio.sleep(_WATCH_S)
            await _load(parts)


async def _publish(parts: Service) -> None:
    """Keep the other workers posted: whoever is asked answers for all."""
    while True:
        parts.metrics.refresh()
        parts.statistics.publish()
        await asyncio.sleep(_WATCH_S)


async def _follow_the_disk(parts: Service) -> None:
    while True:
        await asyncio.sleep(parts.settings.watch_s)
        if parts.draining:
            return
        try:
            await parts.with_store(parts.store.refresh)
        except Exception:  # whatever lies on the disk, the next look may find it mended
            logger.exception("the store could not be looked at")


async def _end_with_parent(place: Place | None) -> None:
    """Stop this worker when its supervisor is gone: nobody would ever stop it."""
    parent = os.getppid()
    while os.getppid() == parent:
        await asyncio.sleep(_WATCH_S)
    logger.warning("the supervisor is gone; stopping")
    if place is not None:
        place.remove()
    os.kill(os.getpid(), signal.SIGTERM)


async def _end_hung(parts: Service) -> None:
    """End this process when a worker hangs for good, or a GPU is lost: the supervisor replaces it.

    What other workers still do is answered first. A thread that hangs would keep the process from
    ending by itself; and CUDA keeps a GPU's error for as long as the process lives.
    """
    since = time.monotonic()
    while not parts.scheduler.broken and time.monotonic() - since < _HANG_S:
        await asyncio.sleep(_WATCH_S)
        if not parts.scheduler.lost:
            since = time.monotonic()
    if lost := parts.scheduler.broken:
        logger.critical("%s lost; replacing the process", ", ".join(lost))
    else:
        logger.critical("%d workers hang; replacing the process", parts.scheduler.lost)
    parts.draining = True
    await _answered(parts)
    await _send_traces(parts)
    os._exit(_HUNG)


def _drain_on_signal(parts: Service) -> None:
    """On SIGTERM and SIGINT first finish what was accepted, then let the server stop.

    While draining the server still listens, so that new requests get a clear 503 instead of a
    connection that nobody answers. A second signal stops at once. A worker that is to be replaced
    stops listening at once: the others take what comes.
    """
    if threading.current_thread() is not threading.main_thread():
        return  # an embedded app, a test client: signals are not ours
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        stop = signal.getsignal(signum)  # uvicorn's own handler, installed just before
        if callable(stop):
            signal.signal(signum, partial(_on_signal, parts, loop, stop))


def _on_signal(
    parts: Service,
    loop: asyncio.AbstractEventLoop,
    stop: Callable[[int, FrameType | None], object],
    signum: int,
    frame: FrameType | None,
) -> None:
    replaced = signum == signal.SIGTERM and parts.place is not None and not parts.place.ends
    if parts.draining or replaced:
        stop(signum, frame)
    else:
        parts.draining = True
        loop.call_soon_threadsafe(lambda: loop.create_task(_drain(parts, partial(stop, signum))))


async def _drain(parts: Service, stop: Callable[[FrameType | None], object]) -> None:
    logger.info("draining: %d requests are being answered", parts.active)
    await _answered(parts)
    stop(None)


async def _tidy_when_idle(parts: Service) -> None:
    since = time.monotonic()
    while True:
        await asyncio.sleep(_WATCH_S)
        if not parts.scheduler.idle:
            since = time.monotonic()
        elif time.monotonic() - since > _IDLE_S:
            await _tidy(parts)


async def _tidy(parts: Service) -> None:
    """Apart from the loop above, where `engine` would live on and with it an unloaded one."""
    for engine in parts.store:
        await asyncio.to_thread(engine.give_back_memory)


async def _answered(parts: Service) -> None:
    """Return when all requests are answered, or the time for that is over."""
    parts.close_store()  # nobody waits for what is still being loaded
    try:
        async with asyncio.timeout(parts.settings.drain_s):
            while parts.active:
                await asyncio.sleep(0.02)
    except TimeoutError:
        logger.error(
            "%d requests were not answered within %g s", parts.active, parts.settings.drain_s
        )
