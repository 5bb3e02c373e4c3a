"""The service on Ray Serve, for several machines: `serve run service.ray_serve:app artifacts=…`.

One deployment. Each of its replicas is the whole service of app.py, with the same routes, the same
queue and batches of mixed sizes; Ray places, replaces, adds and removes them, and hands each
request to one of two that it draws, to the one with fewer. Needs the extra ray.
"""

import logging
import math
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator
from ray import serve
from ray.serve._private.request_router.pow_2_router import PowerOfTwoChoicesRequestRouter
from ray.serve.config import (
    AutoscalingConfig,
    AutoscalingContext,
    AutoscalingPolicy,
    BackpressureConfig,
    RequestRouterConfig,
)
from ray.serve.metrics import Gauge
from ray.serve.schema import LoggingConfig

from service.api.deps import Service
from service.app import create_app
from service.logs import configure
from service.settings import MEGA, Settings, granted_cores, granted_memory_mb

logger = logging.getLogger(__name__)

_WAITING = "waiting_megapixels"
# Settings of what Ray does here: it has the sockets, and gives each replica its GPUs.
_OF_RAY = {"host", "port", "root_path", "forwarded_allow_ips", "devices", "header_timeout_s",
           "answer_timeout_s"}  # fmt: skip
_HEALTH_S = 2.0  # between two looks of Ray; three bad ones, and the replica is replaced
_ANSWER_S = 10.0  # to such a look
_ATTEMPTS = 3  # to start a replica, before an update is given up


class RaySettings(Settings):
    """What can be set: all that a replica's service has, and how many replicas of what size."""

    cores: int = Field(1, ge=1, description="cores of a replica")
    gpus: float = Field(0, ge=0, description="GPUs of a replica")
    replicas: int = Field(1, ge=1, description="replicas, at least")
    max_replicas: int | None = Field(
        None, ge=1, description="replicas, at most; with it Ray adds and removes them by what waits"
    )
    replica_megapixels: float = Field(
        8, gt=0, description="network pixels admitted and not answered that a replica is meant for"
    )
    scale_up_s: float = Field(10, ge=0, description="more has to wait for so long")
    scale_down_s: float = Field(300, ge=0, description="less has to wait for so long")
    surge: int = Field(
        25,
        ge=0,
        le=100,
        description="replicas more while they are replaced, in per cent, rounded up; with 0, where "
        "there is no room for one more, others stop first",
    )
    workers: int = Field(1, ge=1, le=1, description="replicas take their place")
    control_access: Literal["closed"] = Field(
        "closed", description="a request reaches one replica only; use watch_s"
    )

    @model_validator(mode="after")
    def _make_sense(self) -> Self:
        if given := _OF_RAY & self.model_fields_set:
            raise ValueError(f"{', '.join(sorted(given))}: on Ray, that is for Ray to be told")
        if self.provider == "cuda" and not self.gpus:
            raise ValueError("provider=cuda needs gpus, for example gpus=1")
        if self.gpus > 1 and self.gpus != int(self.gpus):
            raise ValueError("gpus is a part of one, or a whole number")
        if self.max_replicas is None:
            return self
        if self.max_replicas < self.replicas:
            raise ValueError("max_replicas must not be less than replicas")
        if self.replica_megapixels >= self.queue_megapixels:
            raise ValueError("replica_megapixels must be less than queue_megapixels, or a replica "
                             "refuses what should bring another one")  # fmt: skip
        return self


class Replica:
    """One process of the service."""

    def __init__(self, given: dict[str, Any]) -> None:
        """given: settings that are not the default; the rest is found where the replica runs.

        Raises StoreError when no model can be loaded: Ray shows it, and keeps the replicas it has.
        """
        settings = settings_here(given)
        configure(settings.log_level, settings.log_format)
        self._app = create_app(settings)
        self._app.add_middleware(_OneId)
        self._parts: Service = self._app.state.service
        self._parts.store.load()
        self._shown: dict[str, Gauge] = {}

    def __serve_build_asgi_app__(self) -> Any:
        """The application, once this is made."""
        return self._app

    async def check_health(self) -> None:
        """Asked by Ray every now and then; raises Unavailable when this must be replaced."""
        self._parts.ensure_ready()
        try:
            self._show_metrics()
        except Exception:  # no reason to be replaced
            logger.exception("metrics could not be shown")

    def record_autoscaling_stats(self) -> dict[str, float]:
        """What waits here, in megapixels, for `ByWaitingPixels`.

        Bodies count as well: where these are nearer to their limit, as much of the queue's.
        """
        parts, settings = self._parts, self._parts.settings
        bodies = parts.bodies.used / parts.bodies.limit * settings.queue_megapixels
        return {_WAITING: max(parts.scheduler.admitted_pixels / MEGA, bodies)}

    def _show_metrics(self) -> None:
        """Ours, through Ray's exporter; it has gauges only that may be set to what was counted."""
        metrics = self._parts.metrics
        metrics.refresh()
        samples = [sample for metric in metrics.registry.collect() for sample in metric.samples]
        for name, labels, value, *_ in samples:
            if not name.startswith("anypool_") or name.endswith("_created"):
                continue
            if name not in self._shown:
                self._shown[name] = Gauge(name, tag_keys=tuple(labels))  # type: ignore[arg-type]
            self._shown[name].set(value, tags=labels)


class _OneId:
    """ASGI middleware: Ray's proxy puts the request's id on the answer, the same as ours."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def answer(message: dict[str, Any]) -> None:
            headers = message.get("headers", ())
            if message["type"] == "http.response.start":
                message["headers"] = [h for h in headers if h[0] != b"x-request-id"]
            await send(message)

        await self._app(scope, receive, answer)


class AnyReplica(PowerOfTwoChoicesRequestRouter):
    """Ray's router, without its preference for replicas on the proxy's machine.

    Ray takes another only where those have no room for a request. But ours have, and answer 503
    when their queue has none for its pixels, while replicas elsewhere have nothing to do.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        nowhere = {"prefer_local_node_routing": False, "prefer_local_az_routing": False}
        super().__init__(*args, **{**options, **nowhere})  # type: ignore[no-untyped-call]


class ByWaitingPixels:
    """As many replicas as it takes for none to have more than so many megapixels."""

    def __init__(self, megapixels: float) -> None:
        self._megapixels = megapixels

    def __call__(self, context: AutoscalingContext) -> tuple[int, dict[str, Any]]:
        """The number of them, and nothing to remember."""
        by_replica = (context.aggregated_metrics or {}).get(_WAITING, {})
        return max(1, math.ceil(sum(by_replica.values()) / self._megapixels)), {}


def settings_here(given: dict[str, Any]) -> Settings:
    """The settings of a replica where it runs: of that machine's memory its share by cores."""
    settings = Settings(**given)
    if "memory_mb" in settings.model_fields_set:
        return settings
    part = min(1.0, settings.cores / granted_cores())
    return settings.model_copy(update={"memory_mb": int(granted_memory_mb() * part)})


def app(settings: RaySettings) -> serve.Application:
    """What `serve run` and `serve deploy` build of `name=value` and ANYPOOL_*."""
    deployment = serve.deployment(
        name="anypool",
        num_replicas=settings.replicas if settings.max_replicas is None else None,
        autoscaling_config=_scaling(settings),
        ray_actor_options={"num_cpus": settings.cores, "num_gpus": settings.gpus},
        # How many images are too many is for each replica's queue to say, by their pixels. These
        # are limits of requests, as of connections elsewhere.
        max_ongoing_requests=settings.max_connections,
        max_queued_requests=settings.max_connections,
        backpressure_config=BackpressureConfig(status_code=503, retry_after_s=1),
        request_router_config=RequestRouterConfig(request_router_class=AnyReplica),  # type: ignore[arg-type]
        health_check_period_s=_HEALTH_S,
        health_check_timeout_s=_ANSWER_S,
        graceful_shutdown_timeout_s=settings.drain_s,
        max_surge_percent=settings.surge,
        max_constructor_retry_count=_ATTEMPTS,
        logging_config=LoggingConfig(enable_access_log=False),
    )
    return deployment(serve.ingress()(Replica)).bind(_given(settings))


def _scaling(settings: RaySettings) -> AutoscalingConfig | None:
    if settings.max_replicas is None:
        return None
    return AutoscalingConfig(
        min_replicas=settings.replicas,
        max_replicas=settings.max_replicas,
        upscale_delay_s=settings.scale_up_s,
        downscale_delay_s=settings.scale_down_s,
        policy=AutoscalingPolicy(
            policy_function=f"{__name__}:{ByWaitingPixels.__name__}",
            policy_kwargs={"megapixels": settings.replica_megapixels},
        ),
    )


def _given(settings: RaySettings) -> dict[str, Any]:
    """What a replica cannot find by itself; it may have another working directory."""
    known = set(Settings.model_fields)
    given = settings.model_dump(mode="json", exclude_unset=True, include=known)
    paths = {n: str(v.absolute()) for n, v in settings if n in known and isinstance(v, Path)}
    here = {"cores": settings.cores, "workers": 1, "control_access": "closed"}
    if not settings.gpus:
        here["provider"] = "cpu"  # Ray does not hide GPUs from whoever has none
    return {**given, **paths, **here}
