"""Sends an input to a real server on a real socket, and says what was wrong with what came back.

An input is the bytes of a connection, usually one request. Behind it goes a request for /healthz,
which asks the server to close: so the end of the answers is seen, and whether both sides still
agree on where a request begins.
"""

import io
import re
import select
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
from PIL import Image

from tests.conftest import photo
from tests.e2e.server import Server
from tests.fuzz.answers import Answer, parse, wrong_answer
from tests.load.overload import resident_mb

CORES = 2
BOUND_S = 20.0  # for all answers on a connection, on a machine that is busy with other work
_GOOD = "/v1/models/efficientnet_lite0/classify?top_k=1&resize=fit&size=128"
_AFTER = b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Request-Id: after\r\nConnection: close\r\n\r\n"
_COMPLAINT = re.compile(r"^Traceback| ERROR | CRITICAL |Warning: ")
_SIGNED = re.compile(r"[0-9a-f]{8,}|\d+")


@dataclass(frozen=True, slots=True)
class Limits:
    """What the server is told to accept: the limits that its memory follows from."""

    body_mb: float
    source_megapixels: float
    megapixels: float
    timeout_s: float | None  # for a header, for a body

    def options(self) -> list[str]:
        """As options of `anypool serve`."""
        told = {
            "cores": CORES,
            "max-body-mb": self.body_mb,
            "max-source-megapixels": self.source_megapixels,
            "max-megapixels": self.megapixels,
            "batch-megapixels": self.megapixels,
        }
        if self.timeout_s is not None:
            told |= {"header-timeout-s": self.timeout_s, "body-timeout-s": self.timeout_s}
        return [part for name, value in told.items() for part in (f"--{name}", str(value))]

    @property
    def growth_mb(self) -> float:
        """Memory that one request may take, beyond what the server has when it is warm.

        On each core a run, 190 bytes a pixel as the README says, and a decode: up to 16 bytes a
        pixel of the source (4 as it was, as much again converted, coefficients of a progressive
        JPEG). Of a body 32 times its size: JSON of small values takes most. And 100 MB for what
        the allocator keeps.
        """
        decoding = CORES * (190 * self.megapixels + 16 * self.source_megapixels)
        return decoding + 32 * self.body_mb + 100


TIGHT = Limits(body_mb=2, source_megapixels=4, megapixels=0.3, timeout_s=1)
ROOMY = Limits(body_mb=64, source_megapixels=50, megapixels=2.1, timeout_s=None)  # the defaults


@dataclass(frozen=True, slots=True)
class Input:
    """What is sent on one connection. kind: which strategy made it."""

    kind: str
    data: bytes

    @property
    def path(self) -> str | None:
        """The path it asks for; None where HTTP itself may be broken, or more than one is asked."""
        if self.kind in ("framing", "header"):
            return None
        return self.data.split(b" ", 2)[1].decode("latin-1")

    @property
    def timed(self) -> bool:
        """Whether it may say how long it will wait, so that it may be answered too late."""
        return b"timeout" in self.data or b"Content-Encoding" in self.data


@dataclass(frozen=True, slots=True)
class Finding:
    """An input that the server did not bear, and why."""

    input: Input
    why: str

    @property
    def signature(self) -> str:
        """The same for findings that are probably one."""
        return f"{self.input.kind}: {_SIGNED.sub('#', self.why)[:120]}"


@dataclass(frozen=True, slots=True)
class Exchange:
    """Everything that came back on a connection, and after how many seconds it was closed."""

    received: bytes
    seconds: float


class Driver:
    """One client of one server; compares each good answer with the first."""

    def __init__(self, server: Server, limits: Limits) -> None:
        self._server = server
        self._workers = server.workers()
        self._good = photo("hammer").data  # one of .90: of those near 1, harm would not show
        self._client = httpx.Client(base_url=server.url, timeout=60)
        self._asked = 0
        self._seen = 0
        self.slowest = 0.0
        for _ in range(3):
            self._first = self._known()
        self._most_mb = self._memory_mb()[1] + limits.growth_mb

    @property
    def peak_mb(self) -> float:
        """Most resident memory that the worker ever had, in 10^6 bytes."""
        return self._memory_mb()[1]

    @property
    def most_mb(self) -> float:
        """The resident memory that it may have."""
        return self._most_mb

    def close(self) -> None:
        self._client.close()

    def try_(self, tried: Input) -> tuple[list[Answer], Finding | None]:
        """Send it; its answers, and what was wrong if anything was."""
        try:
            exchange = send(self._server.url, tried.data + _AFTER)
        except OSError as exc:
            return [], Finding(tried, f"nobody listens: {exc}")
        self.slowest = max(self.slowest, exchange.seconds)
        answers = list(parse(exchange.received))
        wrong = [*self._wrong_answers(tried, exchange, answers), *self._harm()]
        return answers, Finding(tried, wrong[0]) if wrong else None

    def _wrong_answers(
        self, tried: Input, exchange: Exchange, answers: list[Answer]
    ) -> Iterator[str]:
        if exchange.seconds > BOUND_S:
            yield f"no end within {BOUND_S:g} s; so far {exchange.received[:100]!r}"
        own = [answer for answer in answers if answer.headers.get("x-request-id") != "after"]
        if not own and tried.kind != "framing":
            yield f"no answer: {exchange.received[:100]!r}"
        for answer in own:
            if wrong := wrong_answer(answer, tried.path, tried.timed):
                yield f"{answer.status}: {wrong}"
        if tried.kind == "image" and own and own[0].status == 200:
            yield from _other_size(tried, own[0].json())

    def _harm(self) -> Iterator[str]:
        try:
            found = self._known()
        except (httpx.HTTPError, KeyError, ValueError) as exc:
            yield f"the next good request: {exc!r}"
            found = self._first
        if self._server.workers() != self._workers:
            yield "the worker process is another one"
            self._server.wait_until_ready()
            self._workers = self._server.workers()
        if found[0] != self._first[0] or abs(found[1] - self._first[1]) > 1e-6:
            yield f"the next good request is answered {found}, not {self._first}"
        lines, self._seen = self._server.lines[self._seen :], len(self._server.lines)
        yield from (f"log: {line}" for line in lines if _COMPLAINT.search(line))
        peak = self._memory_mb()[1]
        if peak > self._most_mb:
            self._most_mb = peak * 1.1  # say it once
            yield f"memory: the worker had {peak:.0f} MB"

    def _known(self) -> tuple[int, float]:
        """Class and probability of a known photo; what was logged until then has been read."""
        self._asked += 1
        id_ = f"known-{self._asked}"
        answer = self._client.post(_GOOD, content=self._good, headers={"X-Request-Id": id_})
        (best,) = answer.raise_for_status().json()["results"][0]["predictions"]
        give_up = time.monotonic() + BOUND_S
        while not any(id_ in line for line in self._server.lines[self._seen :]):
            if time.monotonic() > give_up:
                raise ValueError(f"{id_} is not logged")
            time.sleep(0.0005)
        return best["index"], best["probability"]

    def _memory_mb(self) -> tuple[float, float]:
        return resident_mb(self._server.workers()[0])


def send(url: str, data: bytes) -> Exchange:
    """Write and read at once, until the server closes: it may answer before it has read all."""
    where, begun = urlsplit(url), time.monotonic()
    received, left = io.BytesIO(), memoryview(data)
    with socket.create_connection((where.hostname or "", where.port or 80), BOUND_S) as connected:
        connected.setblocking(False)
        while (spent := time.monotonic() - begun) <= BOUND_S:
            waiting = [connected] if left else []
            readable, writable, _ = select.select([connected], waiting, [], BOUND_S - spent)
            try:
                if readable:
                    if not (chunk := connected.recv(1 << 16)):
                        break
                    received.write(chunk)
                if writable:
                    left = left[connected.send(left[: 1 << 16]) :]
            except (ConnectionResetError, BrokenPipeError):
                left = left[:0]  # it may be readable still
                if not readable and writable:
                    continue
                break
    return Exchange(received.getvalue(), time.monotonic() - begun)


def _other_size(tried: Input, answer: Any) -> Iterator[str]:
    """Pillow's own word on the size of a picture that was classified."""
    told = answer["results"][0]["input"]
    with Image.open(io.BytesIO(tried.data.partition(b"\r\n\r\n")[2])) as image:
        if sorted(told.values()) != sorted(image.size):
            yield f"Pillow says {image.size}, the answer {told}"


def regressions(folder: Path = Path(__file__).parent / "regressions") -> list[Path]:
    """Every input that failed once."""
    return sorted(folder.glob("*.http"))


def load(path: Path) -> Input:
    """An input that was saved as <kind>-<what>.http."""
    return Input(path.name.partition("-")[0], path.read_bytes())
