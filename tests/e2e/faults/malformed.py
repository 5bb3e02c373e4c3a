"""Requests that mean well and are broken somewhere, the same on every run."""

import json
import random
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass

from tests.fuzz.pictures import samples

_V1, _V2 = "/v1/models/seed_cnn/classify", "/v2/models/seed_cnn/infer"
_FORM = {"Content-Type": "multipart/form-data; boundary=x"}
_JSON = {"Content-Type": "application/json"}
_QUERIES = "top_k=0", "top_k=x", "resize=huge", "size=-1", "classes=,", "timeout_ms=1e9999", "x=y"


@dataclass(frozen=True, slots=True)
class Broken:
    """A POST request whose HTTP is whole."""

    path: str
    headers: dict[str, str]
    body: bytes


def malformed() -> Iterator[Broken]:
    """Without end."""
    chance = random.Random(9)
    good = list(_good())
    while True:
        request = chance.choice(good)
        if chance.random() < 0.1:
            yield Broken(f"{_V1}?{chance.choice(_QUERIES)}", request.headers, request.body)
        else:
            yield Broken(request.path, request.headers, _damaged(request.body, chance))


def _good() -> Iterator[Broken]:
    for file in samples().values():
        text = b64encode(file).decode()
        part = b'--x\r\nContent-Disposition: form-data; name="files"\r\n\r\n%s\r\n--x--\r\n' % file
        image = {"name": "image", "shape": [1], "datatype": "BYTES", "data": [text]}
        yield Broken(_V1, {}, file)
        yield Broken(_V1, _FORM, part)
        yield Broken(_V1, _JSON, json.dumps({"images": [{"name": "a", "data": text}]}).encode())
        yield Broken(_V2, _JSON, json.dumps({"inputs": [image]}).encode())


def _damaged(body: bytes, chance: random.Random) -> bytes:
    """Some bytes near the start are others, and often the end is missing."""
    file = bytearray(body)
    for _ in range(chance.randint(1, 4)):
        file[chance.randrange(min(60, len(file)))] = chance.randrange(256)
    kept = chance.choice((1.0, 0.9, chance.random()))
    return bytes(file[: int(len(file) * kept)])
