"""Open Inference Protocol v2 (KServe, Triton) over REST, for the clients people already have.

https://github.com/kserve/open-inference-protocol, with Triton's extensions for binary tensors,
classification, configuration, statistics and the repository. Success is 200, an error is
{"error": "…"}.
"""

import json
from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, Path, Request, Response

from models.card import Card
from service.api import tensors
from service.api.answering import engine_of, outcomes
from service.api.body import read_bytes
from service.api.deps import Service, service
from service.api.openapi import OIP_ANSWER, OIP_BODY, OIP_ERROR, VERSION
from service.api.schemas_v2 import statistics
from service.api.tensors import IMAGE, PIXELS, Inference, Tensor, Wanted
from service.classify import Options
from service.engine import Engine
from service.errors import BadRequest
from service.folders import StoreError
from service.outcome import Outcome, check_all
from service.scores import Scores
from service.threads import parsed
from service.version import version

router = APIRouter(prefix="/v2", tags=["Open Inference Protocol v2"])

Parts = Annotated[Service, Depends(service)]
Name = Annotated[str, Path(description="a model's name, see /v2/repository/index")]
Handler = TypeVar("Handler", bound=Callable[..., Any])

_EXTENSIONS = [
    "binary_tensor_data", "classification", "model_configuration", "model_repository",
    "parameters", "statistics",
]  # fmt: skip
_OUTPUTS = ("probabilities", "logits", "embedding")  # the default first
_PARAMETERS_BODY = {
    "requestBody": {"content": {"application/json": {"schema": {"type": "object"}}}}
}
_CONTROL_BYTES = 100_000
_JSON_LENGTH = "Inference-Header-Content-Length"
_MOST_TIMEOUT_US = 3_600_000_000
_VALUE_BYTES = 20  # of a number in JSON


def _route(
    path: str, name: str, *statuses: int, method: str = "GET", **more: Any
) -> Callable[[Handler], Handler]:
    """Register a route, documented with the errors of those statuses."""
    return router.api_route(
        path,
        methods=[method],
        operation_id=f"oip_{name}",
        summary=name.replace("_", " ").capitalize(),
        responses=dict.fromkeys(statuses, OIP_ERROR) | more.pop("responses", {}),
        **more,
    )


def _of_model(path: str, name: str, *statuses: int, **more: Any) -> Callable[[Handler], Handler]:
    """Register a route of a model, and the same of one of its versions."""

    def register(handler: Handler) -> Handler:
        _route(f"/models/{{name}}{path}", name, *statuses, **more)(handler)
        extra = more.pop("openapi_extra", {})
        extra = {**extra, "parameters": [VERSION]}
        path_ = f"/models/{{name}}/versions/{{version}}{path}"
        _route(path_, f"{name}_of_version", *statuses, openapi_extra=extra, **more)(handler)
        return handler

    return register


async def _asked(request: Request, parts: Parts, name: Name) -> Engine:
    """The engine that the path names; without a version the newest."""
    return engine_of(request, parts, name, request.path_params.get("version"))


Asked = Annotated[Engine, Depends(_asked)]


@_route("", "server", 401)
async def server() -> dict[str, Any]:
    """What this server is and which extensions of the protocol it has."""
    return {"name": "anypool", "version": version(), "extensions": _EXTENSIONS}


@_route("/health/live", "live")
async def live() -> dict[str, bool]:
    """Alive: the process answers."""
    return {"live": True}


@_route("/health/ready", "ready", 503)
async def ready(parts: Parts) -> dict[str, bool]:
    """Ready: the models are loaded and warm."""
    parts.ensure_ready()
    return {"ready": True}


@_route("/models/stats", "all_statistics", 401, 503)
async def all_stats(parts: Parts) -> dict[str, Any]:
    """What was asked of each model version, and how long it took."""
    parts.ensure_ready()
    return {"model_stats": [_statistics(parts, engine) for engine in parts.store]}


@_of_model("", "metadata", 401, 404, 503)
async def metadata(parts: Parts, engine: Asked) -> dict[str, Any]:
    """A model's inputs and outputs; -1 is any length, the first the batch."""
    card = engine.card
    versions = sorted(e.card.version for e in parts.store if e.card.name == card.name)
    return {
        "name": card.name,
        "versions": [str(version) for version in versions],
        "platform": "onnx_onnxv1",
        "inputs": [
            {"name": label, "datatype": datatype, "shape": [-1, *shape]}
            for label, datatype, shape in _inputs(card)
        ],
        "outputs": [
            {"name": label, "datatype": "FP32", "shape": [-1, size]}
            for label, size in _sizes(card).items()
        ],
    }


@_of_model("/ready", "model_ready", 401, 404, 503)
async def model_ready(engine: Asked) -> dict[str, Any]:
    """Whether a model can be used; other than 200 means no."""
    return {"name": engine.card.name, "ready": True}


@_of_model("/config", "config", 401, 404, 503)
async def config(parts: Parts, engine: Asked) -> dict[str, Any]:
    """The model as a Triton configuration; dims leave out the batch. Send one of the inputs."""
    card = engine.card
    return {
        "name": card.name,
        "platform": "onnxruntime_onnx",
        "backend": "onnxruntime",
        "max_batch_size": parts.settings.max_images,
        "input": [
            {"name": label, "data_type": _typed(datatype), "dims": [*shape], "optional": True}
            for label, datatype, shape in _inputs(card)
        ],
        "output": [
            {"name": label, "data_type": "TYPE_FP32", "dims": [size]}
            for label, size in _sizes(card).items()
        ],
        "dynamic_batching": {},
    }


@_of_model("/stats", "statistics", 401, 404, 503)
async def stats(request: Request, parts: Parts, engine: Asked) -> dict[str, Any]:
    """What was asked of a model, of one version or of all, and how long it took."""
    one = "version" in request.path_params
    engines = [e for e in parts.store if e.card.name == engine.card.name]
    return {"model_stats": [_statistics(parts, e) for e in ([engine] if one else engines)]}


@_of_model(
    "/infer", "infer", 400, 401, 404, 408, 413, 415, 422, 429, 500, 503, 504, method="POST",
    openapi_extra=OIP_BODY, responses=OIP_ANSWER,
)  # fmt: skip
async def infer(request: Request, parts: Parts, engine: Asked) -> Response:
    """Classify the images of a tensor: files of any size, or pixels of one size."""
    limits, card = parts.settings, engine.card
    body = await read_bytes(request, limits.max_body_bytes, limits.body_timeout_s)
    parse = partial(
        tensors.read, body, _json_length(request), card.preprocessing.channels, [*_sizes(card)],
        limits.max_images,
    )  # fmt: skip
    asked = await parsed(parse, len(body))
    found = await outcomes(request, parts, engine, asked.pictures, _options(asked))
    check_all([outcome.error for outcome in found])
    size = _VALUE_BYTES * len(found) * max(_sizes(card)[wanted.name] for wanted in asked.outputs)
    text, length = await parsed(partial(_written, card, asked, found), size)
    if length is None:
        return Response(text, media_type="application/json")
    return Response(
        text, media_type="application/octet-stream", headers={_JSON_LENGTH: str(length)}
    )


def _change(action: str) -> Callable[[Handler], Handler]:
    """Register a route that changes what is served."""
    return _route(
        f"/repository/models/{{name}}/{action}", action, 400, 401, 403, 404, 408, 413, 503,
        method="POST", openapi_extra=_PARAMETERS_BODY,
    )  # fmt: skip


@_route(
    "/repository/index", "repository_index", 400, 401, 408, 413, 503, method="POST",
    openapi_extra=_PARAMETERS_BODY,
)  # fmt: skip
async def index(request: Request, parts: Parts) -> list[dict[str, str]]:
    """All model versions in the store, the default model's first, and why one cannot be used."""
    asked = await _control(request, parts)
    return [
        {"name": e.name, "version": e.version, "state": e.state, "reason": e.reason}
        for e in parts.store.index()
        if e.state == "READY" or asked.get("ready") is not True
    ]


@_change("load")
async def load(request: Request, parts: Parts, name: Name) -> dict[str, str]:
    """Load what is new or changed of a model in the store, beside what is served, and switch."""
    parts.ensure_ready()
    parameters = (await _control(request, parts)).get("parameters") or {}
    if not isinstance(parameters, dict) or parameters:
        raise BadRequest("a model is loaded as it lies in the store: no parameters are taken")
    try:
        await parts.with_store(partial(parts.store.load_model, name))
    except StoreError as exc:
        parts.ensure_ready()  # or it is the service that ends
        raise BadRequest(f"not loaded: {exc}") from exc
    return {}


@_change("unload")
async def unload(request: Request, parts: Parts, name: Name) -> dict[str, str]:
    """Take a model out of service; what is under way is answered first."""
    parts.ensure_ready()
    await _control(request, parts)
    await parts.with_store(partial(parts.store.unload_model, name))
    return {}


async def _control(request: Request, parts: Service) -> dict[str, Any]:
    """The JSON object of a request about models; an empty body says nothing."""
    data = await read_bytes(request, _CONTROL_BYTES, parts.settings.body_timeout_s)
    try:
        found = json.loads(data or b"{}")
    except (ValueError, RecursionError) as exc:
        raise BadRequest(f"the body is not JSON: {exc}") from exc
    if not isinstance(found, dict):
        raise BadRequest("the body is JSON, but no object")
    return found


def _inputs(card: Card) -> list[tuple[str, str, list[int]]]:
    """Name, datatype and shape without the batch."""
    return [(IMAGE, "BYTES", [1]), (PIXELS, "UINT8", [-1, -1, card.preprocessing.channels])]


def _sizes(card: Card) -> dict[str, int]:
    """The outputs that can be asked for, the default first, and how many numbers each has."""
    sizes = dict.fromkeys(_OUTPUTS, len(card.labels)) | {"embedding": card.embedding_size or -1}
    return {name: size for name, size in sizes.items() if name in card.outputs}


def _typed(datatype: str) -> str:
    return "TYPE_STRING" if datatype == "BYTES" else f"TYPE_{datatype}"


def _json_length(request: Request) -> int | None:
    told = request.headers.get(_JSON_LENGTH)
    if told is None:
        return None
    if not (told.isascii() and told.isdigit() and len(told) < 19):
        raise BadRequest(f"{_JSON_LENGTH} is {told!r}; it is a number of bytes")
    return int(told)


def _options(asked: Inference) -> Options:
    """What the parameters of a request say: `timeout` in microseconds. Unknown ones say nothing."""
    timeout = asked.parameters.get("timeout", 0)
    if type(timeout) is not int or timeout < 0:
        raise BadRequest("the parameter timeout is a whole number of microseconds")
    if any(wanted.name == "embedding" and wanted.classes for wanted in asked.outputs):
        raise BadRequest("an embedding has no classes; ask for probabilities or logits")
    return Options(timeout_s=min(timeout, _MOST_TIMEOUT_US) / 1e6 or None, whole=True)


def _written(card: Card, asked: Inference, found: Sequence[Outcome]) -> tuple[bytes, int | None]:
    scores = Scores.joined([o.result.scores for o in found if o.result is not None])
    head = {"model_name": card.name, "model_version": str(card.version)}
    if asked.id:
        head["id"] = asked.id
    return tensors.write(head, [_tensor(card, scores, wanted) for wanted in asked.outputs])


def _tensor(card: Card, scores: Scores, wanted: Wanted) -> Tensor:
    values = getattr(scores, wanted.name)  # (n, k)
    if wanted.classes is None:
        return Tensor(wanted.name, values, wanted.binary)
    labels = [label.name for label in card.labels]
    best = tensors.best(values, scores.ranking, labels, wanted.classes)
    return Tensor(wanted.name, best, wanted.binary)


def _statistics(parts: Service, engine: Engine) -> dict[str, Any]:
    card = engine.card
    found = statistics(parts.statistics.of(card.name, card.version))
    return {"name": card.name, "version": str(card.version), **found}
