"""For operators: alive, ready, metrics."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Response
from fastapi.responses import JSONResponse, RedirectResponse

from service.api.deps import Service, service
from service.errors import Unavailable

router = APIRouter(tags=["operations"])

Parts = Annotated[Service, Depends(service)]


@router.head("/healthz", include_in_schema=False)
@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """Alive: the process answers. Restart it when this fails."""
    return {"status": "alive"}


@router.head("/readyz", include_in_schema=False)
@router.get("/readyz", responses={503: {"description": "loading, failed to load, or draining"}})
async def readyz(parts: Parts) -> Response:
    """Ready: models loaded and warm. Send traffic only while this is 200."""
    models = [
        {
            "name": engine.card.name,
            "version": str(engine.card.version),
            "provider": engine.provider,
        }
        for engine in parts.store
    ]
    body: dict[str, Any] = {"status": "ready", "models": models}
    try:
        parts.ensure_ready()
    except Unavailable as exc:
        body |= {"status": exc.type, "detail": exc.detail}
        return JSONResponse(body, 503, headers={"Retry-After": str(exc.retry_after)})
    return JSONResponse(body)


@router.get("/metrics")
async def metrics(parts: Parts) -> Response:
    """Prometheus metrics."""
    return Response(parts.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


@router.get("/", include_in_schema=False)
async def index() -> Response:
    """Send a visitor to the API's documentation."""
    return RedirectResponse("docs")
