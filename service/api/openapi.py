"""What /openapi.json says beyond what FastAPI sees: bodies, errors, headers, examples."""

from functools import cache
from typing import Any

from fastapi import FastAPI

from service.api.body import PART, ImagesRequest
from service.api.errors import TYPE_PREFIX
from service.api.schemas_v1 import ClassifyQuery
from service.api.schemas_v2 import InferRequest
from service.errors import AnypoolError, Unavailable

JSON = dict[str, Any]

ABOUT = """\
Send images of any size, get their classes. Errors are problem details (RFC 9457): when the body
itself is the image, its error is the answer's; in a multipart or JSON request each image has its
own, and the answer is 200.
"""

_REF = "#/components/schemas/{model}"
_PNG = (
    "iVBORw0KGgoAAAANSUhEUgAAAAIAAAACCAIAAAD91JpzAAAAFUlEQVR42gXB"
    "AQEAAACAEP9PF0JQGR7vBPwV2kkwAAAAAElFTkSuQmCC"
)
_BINARY = {"type": "string", "format": "binary"}
_PANDA = {
    "name": "panda.webp",
    "input": {"width": 1024, "height": 681},
    "used": {"width": 320, "height": 213},
    "resize": "fit",
    "predictions": [
        {"index": 388, "id": "n02510455", "label": "giant panda", "probability": 0.8640899658203125}
    ],
}
_DETAILS = {
    "bad-request": "a part is named 'file'; every part must be named 'files'",
    "body-too-large": "the body may have 64 MB. Send fewer or smaller images at once",
    "too-many-images": "a request may have 64 images. Send several requests",
    "unsupported-format": "not one of the formats JPEG, PNG, WEBP, GIF, BMP, TIFF, AVIF",
    "bad-parameter": "top_k: Input should be less than or equal to 100",
    "overloaded": "the queue is full; try again in 3 s",
    "deadline-exceeded": "no worker was free before the deadline; try again later",
}

IMAGE_BODY: JSON = {
    "required": True,
    "description": "Any other content type than the first two, or none: the body is one image, "
    "recognised by its content.",
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": [PART],
                "additionalProperties": False,
                "properties": {PART: {"type": "array", "minItems": 1, "items": _BINARY}},
            },
            "examples": {
                "files": {
                    "summary": "curl -F files=@a.jpg -F files=@b.png",
                    "value": {PART: ["<the bytes of a.jpg>", "<the bytes of b.png>"]},
                }
            },
        },
        "application/json": {
            "schema": {"$ref": _REF.format(model="ImagesRequest")},
            "examples": {
                "png": {
                    "summary": "a PNG of four pixels",
                    "value": {"images": [{"name": "four.png", "data": _PNG}]},
                }
            },
        },
        "application/octet-stream": {
            "schema": _BINARY,
            "examples": {
                "image": {
                    "summary": "curl --data-binary @a.jpg",
                    "value": "<the bytes of a.jpg>",
                }
            },
        },
    },
}

_BROKEN = {
    "name": "b.jpg",
    "error": {
        "type": TYPE_PREFIX + "undecodable-image",
        "title": "The image is broken",
        "status": 422,
        "detail": "the image ends before its last row",
    },
}
CLASSIFIED: JSON = {
    "description": "One result or one error for each image, in the order sent.",
    "headers": {
        "Server-Timing": {
            "description": "the longest that any image spent in each phase, in milliseconds",
            "required": True,
            "schema": {"type": "string"},
            "example": "decode;dur=1.84, queue;dur=0.12, infer;dur=21.40",
        }
    },
    "content": {
        "application/json": {
            "examples": {
                "two": {
                    "summary": "of two images one is broken",
                    "value": {
                        "model": "efficientnet_lite0",
                        "version": "1",
                        "request_id": "7670e6455fb546dc96e1b777a17d41dd",
                        "results": [_PANDA, _BROKEN],
                    },
                }
            }
        }
    },
}


OIP_ERROR: JSON = {
    "description": "What is wrong, in words.",
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["error"],
                "additionalProperties": False,
                "properties": {"error": {"type": "string"}},
            },
            "example": {"error": "image 1: the content is not a known image"},
        }
    },
}
_JSON_LENGTH: JSON = {
    "description": "how many bytes of the body are JSON, where tensors follow",
    "schema": {"type": "integer", "minimum": 0},
}
OIP_BODY: JSON = {
    "requestBody": {
        "required": True,
        "description": "JSON, or JSON and the bytes of a tensor: then the header "
        "Inference-Header-Content-Length says how many bytes are JSON; 0: the body is one image.",
        "content": {
            "application/json": {
                "schema": {"$ref": _REF.format(model="InferRequest")},
                "examples": {
                    "png": {
                        "summary": "a PNG of four pixels",
                        "value": {
                            "inputs": [
                                {"name": "image", "datatype": "BYTES", "shape": [1], "data": [_PNG]}
                            ],
                            "outputs": [
                                {"name": "probabilities", "parameters": {"classification": 3}}
                            ],
                        },
                    }
                },
            }
        },
    }
}
OIP_ANSWER: dict[int | str, JSON] = {
    200: {
        "description": "The outputs, as JSON or, where it was asked for, as JSON and bytes.",
        "headers": {"Inference-Header-Content-Length": _JSON_LENGTH},
        "content": {"application/octet-stream": {"schema": _BINARY}},
    }
}
VERSION: JSON = {
    "name": "version",
    "in": "path",
    "required": True,
    "description": "a positive integer",
    "schema": {"type": "string"},
}


def query() -> list[JSON]:
    """The query of classify, as parameters."""
    found = []
    for name, described in ClassifyQuery.model_json_schema()["properties"].items():
        schema = {k: v for k, v in described.items() if k not in ("title", "description")}
        for choice in schema.pop("anyOf", ()):  # a parameter that may be left out is never null
            if choice != {"type": "null"}:
                schema |= choice
                del schema["default"]
        described = {"description": described["description"], "schema": schema}
        found.append({"name": name, "in": "query", "required": False, **described})
    return found


def problems(*statuses: int, never: str = "") -> dict[int | str, JSON]:
    """The errors of a route, by status; of one status all types can come but that one."""
    return {status: _problem(status, never) for status in statuses}


def _problem(status: int, never: str) -> JSON:
    kinds = [k for k in _kinds(AnypoolError) if k.status == status and k.type != never]
    answer: JSON = {
        "description": ". ".join(kind.title for kind in kinds),
        "content": {
            "application/problem+json": {
                "schema": {"$ref": _REF.format(model="ProblemBody")},
                "examples": {kind.type: {"value": _example(kind)} for kind in kinds},
            }
        },
    }
    if any(issubclass(kind, Unavailable) for kind in kinds):
        answer["headers"] = RETRY_AFTER
    return answer


def _kinds(kind: type[AnypoolError]) -> list[type[AnypoolError]]:
    below = [leaf for child in kind.__subclasses__() for leaf in _kinds(child)]
    return below or [kind]


def _example(kind: type[AnypoolError]) -> JSON:
    return {
        "type": TYPE_PREFIX + kind.type,
        "title": kind.title,
        "status": kind.status,
        "detail": _DETAILS.get(kind.type, kind.title),
    }


RETRY_AFTER: JSON = {
    "Retry-After": {
        "description": "seconds until it is worth trying again",
        "required": True,
        "schema": {"type": "integer", "minimum": 1},
        "example": 3,
    }
}

_REQUEST_ID = {
    "description": "names the request in the answer and the log; 1 to 128 letters, digits, `_`, "
    "`.`, `:` and `-`, otherwise one is made",
    "schema": {"type": "string"},
    "example": "7670e6455fb546dc96e1b777a17d41dd",
}


def describe(app: FastAPI) -> None:
    """Make `app` say all of this."""
    plain = app.openapi
    app.openapi = cache(lambda: _described(plain()))  # type: ignore[method-assign]


def _described(document: JSON) -> JSON:
    components = document["components"]
    for body in (ImagesRequest, InferRequest):
        schema = body.model_json_schema(ref_template=_REF)
        components["schemas"] |= {**schema.pop("$defs"), body.__name__: schema}
    components["parameters"] = {
        "RequestId": {"name": "X-Request-Id", "in": "header", **_REQUEST_ID}
    }
    components["headers"] = {"RequestId": {"required": True, **_REQUEST_ID}}
    for path in document["paths"].values():
        for operation in path.values():
            _describe(operation)
    for unused in ("HTTPValidationError", "ValidationError"):
        components["schemas"].pop(unused, None)
    return document


def _describe(operation: JSON) -> None:
    """Add what holds for every route."""
    operation.setdefault("parameters", []).append({"$ref": "#/components/parameters/RequestId"})
    responses = operation["responses"]
    if "HTTPValidationError" in str(responses.get("422")):  # FastAPI's guess; ours are problems
        del responses["422"]
    for answer in responses.values():
        headers = answer.setdefault("headers", {})
        answer["headers"] = {"X-Request-Id": {"$ref": "#/components/headers/RequestId"}, **headers}
