"""What the service promises of an answer, checked from its bytes alone."""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from service import errors

_JSON_LENGTH = "inference-header-content-length"


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer on a connection."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def parse(received: bytes) -> Iterator[Answer]:
    """The answers in what came on a connection, those of HEAD (which have no body) among them."""
    while received:
        head, _, rest = received.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {n.lower(): v for n, _, v in (line.partition(": ") for line in lines)}
        status = int(first.split(" ")[1])
        length = int(headers.get("content-length", len(rest)))
        if rest.startswith(b"HTTP/1.1 ") or status == 100:
            length = 0
        if status != 100:
            yield Answer(status, headers, rest[:length])
        received = rest[length:]


def _statuses(kind: type[errors.AnypoolError]) -> dict[str, int]:
    below = [pair for child in kind.__subclasses__() for pair in _statuses(child).items()]
    return dict(below) or {kind.type: kind.status}


STATUSES = _statuses(errors.AnypoolError) | {"method-not-allowed": 405}
_NEVER = ("inference-failed", "not-ready", "draining")  # nobody's input does that


def wrong_answer(answer: Answer, path: str | None, timed: bool) -> str | None:
    """What is not as promised; None when all is.

    path: of the request, None when it is not known and any promise will do
    timed: the request says how long it may wait, so that it may be too late
    """
    if answer.status == 500:
        return f"{answer.body[:200]!r}"
    if "x-request-id" not in answer.headers:
        bare = answer.status == 400 and b"Invalid HTTP request" in answer.body
        return None if path is None and bare else f"not from the service: {answer}"
    try:
        return _wrong(answer, path, timed)
    except (ValueError, KeyError, TypeError, IndexError) as exc:
        return f"not as promised, {exc!r}: {answer.headers} {answer.body[:200]!r}"


def _wrong(answer: Answer, path: str | None, timed: bool) -> str | None:
    if not answer.body and (path is None or answer.status == 307):
        return None  # of HEAD; or on to the documentation
    if answer.headers["content-type"] == "application/problem+json":
        if path is not None and path.startswith("/v2"):
            return "a problem, under /v2"
        return wrong_problem(answer.json(), answer.status, timed)
    if answer.status != 200:
        if path is not None and not path.startswith("/v2"):
            return "an error that is no problem"
        return None if _is_v2_error(answer, timed) else f"undocumented: {answer}"
    if path is not None and not path.partition("?")[0].endswith(("/classify", "/infer")):
        return None
    if path is None and answer.headers["content-type"].startswith("text/html"):
        return None  # the playground: some odd requests are for /
    if _JSON_LENGTH in answer.headers:
        return _wrong_tensors(answer, int(answer.headers[_JSON_LENGTH]))
    body = answer.json()
    if "outputs" in body:
        return _wrong_tensors(answer, len(answer.body))
    if "results" in body:
        wrong = (wrong_result(result, timed) for result in body["results"])
        return next((why for why in wrong if why), None)
    return None if path is None else "neither results nor outputs"


def _is_v2_error(answer: Answer, timed: bool) -> bool:
    known = {status for name, status in STATUSES.items() if name not in _NEVER}
    told = answer.json()
    late = answer.status == 504 and not timed
    return list(told) == ["error"] and bool(told["error"]) and answer.status in known and not late


def wrong_problem(problem: dict[str, Any], status: int, timed: bool) -> str | None:
    """What is wrong with a problem detail."""
    kind = problem["type"].rpartition("/")[2]
    if STATUSES.get(kind) != status or problem["status"] != status or kind in _NEVER:
        return f"{problem}"
    if kind == "deadline-exceeded" and not timed:
        return f"nobody said timeout: {problem}"
    return None if problem["title"] and problem["detail"] else f"says nothing: {problem}"


def wrong_result(result: dict[str, Any], timed: bool) -> str | None:
    """What is wrong with one image's result."""
    if "error" in result:
        return wrong_problem(result["error"], result["error"]["status"], timed)
    if min(*result["input"].values(), *result["used"].values()) < 1:
        return f"an image of nothing: {result['input']}"
    values = [p["probability"] for p in result["predictions"]]
    if values != sorted(values, reverse=True) or not all(0 <= v <= 1 + 1e-6 for v in values):
        return f"probabilities: {values}"
    return None


def _wrong_tensors(answer: Answer, length: int) -> str | None:
    told, after = json.loads(answer.body[:length]), len(answer.body) - length
    for output in told["outputs"]:
        count = math.prod(output["shape"])
        if "data" not in output:
            size = output["parameters"]["binary_data_size"]
            after -= size
            if output["datatype"] == "FP32" and size != 4 * count:
                return f"{output}: {size} bytes"
        elif len(output["data"]) != count:
            return f"{output['name']} {output['shape']}: {len(output['data'])} values"
    return f"{after} bytes more than the outputs say" if after else None
