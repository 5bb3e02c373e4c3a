"""REST v1: classify images, list models."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Request
from fastapi.responses import JSONResponse
from pydantic import ValidationError

from service.api import body as bodies
from service.api.answering import engine_of, outcomes
from service.api.deps import Service, service
from service.api.errors import draw, path_of, problem
from service.api.findings import told
from service.api.openapi import CLASSIFIED, IMAGE_BODY, problems, query
from service.api.schemas_v1 import (
    ClassifyAnswer,
    ClassifyQuery,
    LimitsBody,
    ModelBody,
    ModelList,
    ModelSummary,
)
from service.classify import Options
from service.engine import Engine
from service.errors import BadParameter
from service.facts import Facts
from service.heat import HeatMap
from service.outcome import Outcome
from service.settings import MEGA, Settings

router = APIRouter(prefix="/v1", tags=["REST v1"])

Parts = Annotated[Service, Depends(service)]
ModelName = Annotated[
    str, Path(description="a model's name, see GET /v1/models", examples=["efficientnet_lite0"])
]
Version = Annotated[
    str,
    Path(
        description="a positive integer",
        examples=["1"],
        json_schema_extra={"pattern": "^[1-9][0-9]*$"},  # said, not checked: others are 404
    ),
]


def _asked(request: Request) -> ClassifyQuery:
    """The query. FastAPI could parse it, but takes longer for it than for the rest of a request."""
    asked = request.query_params.multi_items()
    values = dict(asked)
    if len(values) < len(asked):
        raise BadParameter("a parameter is given more than once")
    try:
        return ClassifyQuery.model_validate_strings(values)
    except ValidationError as exc:
        raise BadParameter(told(exc.errors(include_url=False))) from exc


_QUERY = query()


def _documented(function: Any, path: str, summary: str, *statuses: int) -> None:
    router.post(
        path,
        operation_id=function.__name__,
        summary=summary,
        response_model=ClassifyAnswer,
        responses={
            200: CLASSIFIED,
            **problems(400, 401, 408, 413, 415, 422, 429, 500, 503, 504, *statuses),
        },
        openapi_extra={"requestBody": IMAGE_BODY, "parameters": _QUERY},
    )(function)


async def classify(request: Request) -> JSONResponse:
    """Classify images with the default model."""
    return await _classify(request, None, None)


async def classify_with_model(request: Request, name: ModelName) -> JSONResponse:
    """Classify images with the newest version of a model."""
    return await _classify(request, name, None)


async def classify_with_version(
    request: Request, name: ModelName, version: Version
) -> JSONResponse:
    """Classify images with one version of a model."""
    return await _classify(request, name, version)


_documented(classify, "/classify", "Classify images")
_documented(classify_with_model, "/models/{name}/classify", "Classify with a model", 404)
_documented(
    classify_with_version,
    "/models/{name}/versions/{version}/classify",
    "Classify with a version",
    404,
)


@router.get(
    "/models",
    operation_id="models",
    summary="List the models",
    response_description="All loaded versions, the default model first.",
    responses=problems(401, 503, never="overloaded"),
)
async def models(parts: Parts) -> ModelList:
    """List the loaded models, the default first."""
    parts.ensure_ready()
    default = parts.store.get().card.name
    return ModelList(
        models=[
            ModelSummary(
                name=engine.card.name,
                version=str(engine.card.version),
                default=engine.card.name == default,
                provider=engine.provider,
                classes=len(engine.card.labels),
            )
            for engine in parts.store
        ]
    )


@router.get(
    "/models/{name}",
    operation_id="model",
    summary="Describe a model",
    response_description="Its card and limits.",
    responses=problems(401, 404, 503, never="overloaded"),
)
async def model(parts: Parts, name: ModelName) -> ModelBody:
    """The card of a model's newest version, and the limits in force."""
    parts.ensure_ready()
    engine = parts.store.get(name)
    versions = [str(e.card.version) for e in parts.store if e.card.name == name]
    return ModelBody(
        name=name,
        versions=versions,
        provider=engine.provider,
        devices=[*engine.devices],
        tuning=engine.tuning,
        card=engine.card,
        limits=_limits(parts.settings),
    )


async def _classify(request: Request, name: str | None, version: str | None) -> JSONResponse:
    # Not dependencies: FastAPI takes longer to hand them over than to parse the query.
    parts, asked = await service(request), _asked(request)
    engine = engine_of(request, parts, name, version)
    options = _options(asked, engine)
    limits = parts.settings
    body = await bodies.read(
        request, limits.max_body_bytes, limits.body_timeout_s, limits.max_images
    )
    found = await outcomes(request, parts, engine, body.pictures, options)
    error = found[0].error
    if body.single and error is not None:
        return draw(path_of(request.scope), error)
    answer = {
        "model": engine.card.name,
        "version": str(engine.card.version),
        "request_id": request.state.request_id,
        "results": [_result(outcome) for outcome in found],
    }
    return JSONResponse(answer, headers={"Server-Timing": _timing(request.state.facts)})


def _options(asked: ClassifyQuery, engine: Engine) -> Options:
    outputs = engine.card.outputs
    if asked.embedding and "embedding" not in outputs:
        raise BadParameter(
            f"{engine.card.name} has no embedding; its outputs: {', '.join(outputs)}"
        )
    if asked.cam is not None and "cam" not in outputs:
        raise BadParameter(
            f"{engine.card.name} has no class activation maps; its outputs: {', '.join(outputs)}"
        )
    if asked.cam is None and asked.cam_classes is not None:
        raise BadParameter("cam_classes says whose maps; ask for them with cam=png or cam=array")
    return Options(
        top_k=asked.top_k,
        policy=None if asked.resize == "model" else asked.resize,
        size=asked.size,
        timeout_s=None if asked.timeout_ms is None else asked.timeout_ms / 1000,
        classes=_numbers(asked.classes),
        min_probability=asked.min_probability,
        embedding=asked.embedding,
        maps=asked.cam,
        map_classes=_numbers(asked.cam_classes),
        threshold=asked.threshold,
    )


def _numbers(text: str | None) -> tuple[int, ...] | None:
    return None if text is None else tuple(dict.fromkeys(map(int, text.split(","))))


def _result(outcome: Outcome) -> dict[str, Any]:
    """One element of `results`: built by hand, since a model a class costs more than the top-k."""
    if outcome.error is not None:
        return {"name": outcome.name, "error": problem(outcome.error)}
    result = outcome.result
    assert result is not None  # an outcome has one or the other
    body: dict[str, Any] = {
        "name": outcome.name,
        "input": {"width": result.source.width, "height": result.source.height},
        "used": {"width": result.used.width, "height": result.used.height},
        "resize": result.policy,
        "predictions": [
            {"index": p.index, "id": p.id, "label": p.label, "probability": p.probability}
            for p in result.predictions
        ],
    }
    if result.embedding is not None:
        body["embedding"] = result.embedding
    if result.maps is not None:
        body["cam"] = [_map(heat_map) for heat_map in result.maps]
    return body


def _map(heat_map: HeatMap) -> dict[str, Any]:
    body = {
        "index": heat_map.index,
        "width": heat_map.width,
        "height": heat_map.height,
        "max": heat_map.highest,
    }
    if heat_map.png is not None:
        return {**body, "png": heat_map.png}
    return {**body, "array": heat_map.array}


def _timing(facts: Facts) -> str:
    """Server-Timing: the longest that any image of the request spent in each phase."""
    phases = facts.longest.items()
    return ", ".join(f"{name};dur={seconds * 1000:.2f}" for name, seconds in phases)


def _limits(settings: Settings) -> LimitsBody:
    return LimitsBody(
        max_body_bytes=settings.max_body_bytes,
        max_images=settings.max_images,
        max_source_pixels=int(settings.max_source_megapixels * MEGA),
        max_source_side=settings.max_source_side,
        max_aspect=settings.max_aspect,
        max_pixels=int(settings.max_megapixels * MEGA),
        max_side=settings.max_side,
        queue_pixels=int(settings.queue_megapixels * MEGA),
        deadline_ms=int(settings.deadline_s * 1000),
    )
