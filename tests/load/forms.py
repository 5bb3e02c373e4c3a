"""How images are asked about: one raw body, multipart of several, or a tensor of files (Open
Inference Protocol)."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tests.load.mixes import Picture

_BOUNDARY = "8d1c52a6b7"


@dataclass(frozen=True, slots=True)
class Request:
    """What is posted."""

    path: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """One image's most probable classes, or the name of its error.

    used: width and height as the network saw it, where the answer says so
    """

    probabilities: dict[int, float]
    used: tuple[int, int] | None = None
    error: str | None = None


def raw(pictures: Sequence[Picture], path: str) -> Request:
    """The body is the image."""
    (picture,) = pictures
    return Request(path, {"Content-Type": picture.kind}, picture.data)


def multipart(pictures: Sequence[Picture], path: str) -> Request:
    """Parts named `files`."""
    parts = (
        b'--%b\r\nContent-Disposition: form-data; name="files"; filename="%d"\r\n'
        b"Content-Type: %b\r\n\r\n%b\r\n"
        % (_BOUNDARY.encode(), picture.number, picture.kind.encode(), picture.data)
        for picture in pictures
    )
    body = b"".join(parts) + f"--{_BOUNDARY}--\r\n".encode()
    kind = f"multipart/form-data; boundary={_BOUNDARY}"
    return Request(path, {"Content-Type": kind}, body)


def tensor(pictures: Sequence[Picture], path: str) -> Request:
    """BYTES [n], binary; the answer is to be JSON."""
    data = b"".join(len(each.data).to_bytes(4, "little") + each.data for each in pictures)
    image = {"name": "image", "datatype": "BYTES", "shape": [len(pictures)]}
    asked = {
        "inputs": [{**image, "parameters": {"binary_data_size": len(data)}}],
        "outputs": [{"name": "probabilities", "parameters": {"classification": 1}}],
    }
    head = json.dumps(asked).encode()
    headers = {"Inference-Header-Content-Length": str(len(head))}
    return Request(path, headers, head + data)


def results(body: bytes) -> list[Answer]:
    """What /v1/classify answered."""
    return [_result(result) for result in json.loads(body)["results"]]


def _result(result: dict[str, Any]) -> Answer:
    if "error" in result:
        return Answer({}, error=result["error"]["type"].rpartition("/")[2])
    found = {each["index"]: each["probability"] for each in result["predictions"]}
    return Answer(found, (result["used"]["width"], result["used"]["height"]))


def classes(body: bytes) -> list[Answer]:
    """What /v2/…/infer answered: value:index:label."""
    texts = json.loads(body)["outputs"][0]["data"]
    pairs = (text.split(":")[:2] for text in texts)
    return [Answer({int(index): float(value)}) for value, index in pairs]


@dataclass(frozen=True, slots=True)
class Form:
    """A way to ask, and to read what comes back.

    ask: takes the pictures and the path to post them to
    """

    ask: Callable[[Sequence[Picture], str], Request]
    read: Callable[[bytes], list[Answer]]


FORMS = {
    "raw": Form(raw, results),
    "multipart": Form(multipart, results),
    "oip": Form(tensor, classes),
}
