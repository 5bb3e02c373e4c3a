"""START HERE. Joins the parts into an application; the only place that knows them all.

A request goes through api/v1.py or api/v2.py (HTTP) to classify.py (what to do), scheduler.py
(when), images.py (decode) and engine.py (infer).
"""

from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from service.api import errors, openapi, ops, v1, v2
from service.api.deps import Service
from service.api.envelope import Envelope
from service.api.gate import Gate
from service.api.playground import playground
from service.classify import Classifier
from service.folders import read_canvases
from service.images import SourceLimits, allowed_formats
from service.keys import Keys, load_keys
from service.lifecycle import lifespan
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
from service.workers import Folder, Place, place_here, share

if TYPE_CHECKING:
    from service.traces import Traces


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


def create_keys(settings: Settings, folder: Folder | None = None) -> Keys | None:
    """Whose keys are let in, None for everybody; raises KeysError."""
    if settings.api_keys_file is None:
        return None
    return load_keys(settings.api_keys_file, None if folder is None else folder.number)


def create_traces(settings: Settings) -> "Traces | None":
    """Where traces go, if anywhere; only then OpenTelemetry is imported."""
    if settings.otel_endpoint is None:
        return None
    from service.traces import Traces

    return Traces(settings.otel_endpoint)


def create_worker() -> FastAPI:
    """The application of one worker process, as the supervisor starts it."""
    return create_app(place=place_here())


def create_app(settings: Settings | None = None, place: Place | None = None) -> FastAPI:
    """The application; without `settings` they come from the environment (ANYPOOL_*).

    place: of this process under the supervisor
    """
    settings = settings or Settings()
    explicit = frozenset(settings.model_fields_set)
    settings = tuned(settings)
    if place is not None:
        settings = share(settings, place.number)
    among = place.folder if place is not None and settings.workers > 1 else None
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
        lifespan=lambda _: lifespan(parts),
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
