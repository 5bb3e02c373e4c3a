"""Open Inference Protocol v2 (KServe, Triton) over REST, for the clients people already have.

https://github.com/kserve/open-inference-protocol, with Triton's extensions for binary tensors,
classification, configuration, statistics and the repository. Success is 200, an error is
{"error": "…"}.
"""

from collections.abc import Sequence
from functools import partial
from importlib.metadata import version as installed
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Request, Response
from fastapi.responses import JSONResponse

from models.card import Card
from service.api import tensors
from service.api.answering import outcomes
from service.api.body import read_bytes
from service.api.deps import Service, service
from service.api.tensors import IMAGE, PIXELS, Inference, Tensor, Wanted
from service.classify import Options, Outcome, check_all
from service.engine import Engine, Scores
from service.errors import BadRequest, Unavailable
from service.statistics import Duration, Record
from service.threads import parsed

router = APIRouter(prefix="/v2", tags=["Open Inference Protocol v2"])

Parts = Annotated[Service, Depends(service)]
Name = Annotated[str, Path(description="a model's name, see /v2/repository/index")]
Version = Annotated[str, Path(description="a positive integer; left out: the newest")]

_EXTENSIONS = [
    "binary_tensor_data", "classification", "model_configuration", "model_repository",
    "parameters", "statistics",
]  # fmt: skip
_OUTPUTS = ("probabilities", "logits", "embedding")  # the default first
_JSON_LENGTH = "Inference-Header-Content-Length"
_MOST_TIMEOUT_US = 3_600_000_000
_VALUE_BYTES = 20  # of a number in JSON


@router.get("")
async def server() -> dict[str, Any]:
    """What this server is and which extensions of the protocol it has."""
    return {"name": "anypool", "version": installed("anypool"), "extensions": _EXTENSIONS}


@router.get("/health/live")
async def live() -> dict[str, bool]:
    """Alive: the process answers."""
    return {"live": True}


@router.get("/health/ready")
async def ready(parts: Parts) -> Response:
    """Ready: the models are loaded and warm."""
    try:
        parts.ensure_ready()
    except Unavailable as exc:
        body = {"ready": False, "error": exc.detail}
        return JSONResponse(body, exc.status, headers={"Retry-After": str(exc.retry_after)})
    return JSONResponse({"ready": True})


@router.get("/models/stats")
async def all_stats(parts: Parts) -> dict[str, Any]:
    """What was asked of each model version, and how long it took."""
    parts.ensure_ready()
    return {"model_stats": [_stats(parts, engine) for engine in parts.store]}


@router.get("/models/{name}")
@router.get("/models/{name}/versions/{version}")
async def metadata(parts: Parts, name: Name, version: Version | None = None) -> dict[str, Any]:
    """A model's inputs and outputs; -1 is any length, the first the batch."""
    card = _engine(parts, name, version).card
    versions = sorted(e.card.version for e in parts.store if e.card.name == name)
    return {
        "name": name,
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


@router.get("/models/{name}/ready")
@router.get("/models/{name}/versions/{version}/ready")
async def model_ready(parts: Parts, name: Name, version: Version | None = None) -> dict[str, Any]:
    """Whether a model can be used; other than 200 means no."""
    _engine(parts, name, version)
    return {"name": name, "ready": True}


@router.get("/models/{name}/config")
@router.get("/models/{name}/versions/{version}/config")
async def config(parts: Parts, name: Name, version: Version | None = None) -> dict[str, Any]:
    """The model as a Triton configuration; dims leave out the batch. Send one of the inputs."""
    card = _engine(parts, name, version).card
    return {
        "name": name,
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


@router.get("/models/{name}/stats")
@router.get("/models/{name}/versions/{version}/stats")
async def stats(parts: Parts, name: Name, version: Version | None = None) -> dict[str, Any]:
    """What was asked of a model, of one version or of all, and how long it took."""
    engine = _engine(parts, name, version)
    engines = [e for e in parts.store if e.card.name == name] if version is None else [engine]
    return {"model_stats": [_stats(parts, engine) for engine in engines]}


@router.post("/models/{name}/infer")
@router.post("/models/{name}/versions/{version}/infer")
async def infer(
    request: Request, parts: Parts, name: Name, version: Version | None = None
) -> Response:
    """Classify the images of a tensor: files of any size, or pixels of one size."""
    engine = _engine(parts, name, version)
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


def _engine(parts: Service, name: str, version: str | None) -> Engine:
    parts.ensure_ready()
    return parts.store.get(name, version)


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


def _stats(parts: Service, engine: Engine) -> dict[str, Any]:
    """As Triton's statistics extension has it; times in nanoseconds."""
    card = engine.card
    record = parts.statistics.of(card.name, card.version)
    return {
        "name": card.name,
        "version": str(card.version),
        "last_inference": round(record.last * 1000),
        "inference_count": record.images,
        "execution_count": record.executions,
        "inference_stats": {
            "success": _duration(record.success),
            "fail": _duration(record.fail),
            "queue": _duration(record.queue),
            "compute_input": _duration(record.decode),
            "compute_infer": _duration(record.infer),
            "compute_output": _duration(record.answer),
            "cache_hit": _duration(Duration()),
            "cache_miss": _duration(Duration()),
        },
        "batch_stats": _batch_stats(record),
    }


def _batch_stats(record: Record) -> list[dict[str, Any]]:
    none = _duration(Duration())
    return [
        {
            "batch_size": n,
            "compute_input": none,
            "compute_infer": _duration(Duration(round(images.count / n), images.seconds / n)),
            "compute_output": none,
        }
        for n, images in sorted(record.runs.items())
    ]


def _duration(duration: Duration) -> dict[str, int]:
    return {"count": duration.count, "ns": round(duration.seconds * 1e9)}
