"""For operators: alive, ready, metrics."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Response
from fastapi.responses import JSONResponse, PlainTextResponse, RedirectResponse
from pydantic import BaseModel, ConfigDict
from pydantic.config import JsonDict

from service.api.deps import Service, service
from service.api.openapi import RETRY_AFTER
from service.errors import Unavailable

router = APIRouter(tags=["operations"])

Parts = Annotated[Service, Depends(service)]


class Alive(BaseModel):
    """The process answers."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"status": "alive"}]})

    status: Literal["alive"]


class LoadedModel(BaseModel):
    """A model that can be used, and what runs it."""

    name: str
    version: str
    provider: str
    devices: list[str]


_READY: JsonDict = {
    "status": "ready",
    "models": [
        {
            "name": "efficientnet_lite0",
            "version": "1",
            "provider": "CPUExecutionProvider",
            "devices": ["cpu"],
        }
    ],
}
_LOADING: JsonDict = {
    "status": "not-ready",
    "models": [],
    "detail": "the model is being loaded; try again in a second",
}


class Readiness(BaseModel):
    """Whether images can be classified; `detail` says why not, or why not on the GPU."""

    model_config = ConfigDict(json_schema_extra={"examples": [_READY, _LOADING]})

    status: Literal["ready", "not-ready", "draining"]
    models: list[LoadedModel]
    detail: str | None = None


@router.get("/healthz", operation_id="healthz", summary="Alive?", response_model=Alive)
async def healthz() -> dict[str, str]:
    """Alive: the process answers. Restart it when this fails."""
    return {"status": "alive"}


@router.get(
    "/readyz",
    operation_id="readyz",
    summary="Ready?",
    response_description="Ready.",
    response_model=Readiness,
    responses={
        503: {
            "model": Readiness,
            "description": "loading, failed to load, hanging, a GPU lost, or draining",
            "headers": RETRY_AFTER,
        }
    },
)
async def readyz(parts: Parts) -> Response:
    """Ready: models loaded and warm. Send traffic only while this is 200."""
    models = [
        {
            "name": engine.card.name,
            "version": str(engine.card.version),
            "provider": engine.provider,
            "devices": [*engine.devices],
        }
        for engine in parts.store
    ]
    body: dict[str, Any] = {"status": "ready", "models": models}
    if fallbacks := {engine.fallback for engine in parts.store if engine.fallback}:
        body["detail"] = f"on the CPU: {'; '.join(sorted(fallbacks))}"
    try:
        parts.ensure_ready()
    except Unavailable as exc:
        body |= {"status": exc.type, "detail": exc.detail}
        return JSONResponse(body, 503, headers={"Retry-After": str(exc.retry_after)})
    return JSONResponse(body)


@router.get(
    "/metrics",
    operation_id="metrics",
    summary="Metrics",
    response_class=PlainTextResponse,
    responses={200: {"content": {"text/plain": {"example": "anypool_workers_lost 0.0\n"}}}},
)
async def metrics(parts: Parts) -> Response:
    """Prometheus metrics."""
    return Response(parts.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


@router.get("/", include_in_schema=False)
async def index() -> Response:
    """Send a visitor to the API's documentation."""
    return RedirectResponse("docs")
