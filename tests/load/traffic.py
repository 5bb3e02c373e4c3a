"""Requests under way: each in a greenlet of its own, over kept connections, timed from when it was
due."""

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import gevent
from gevent.lock import BoundedSemaphore
from gevent.pool import Pool
from geventhttpclient import HTTPClient
from geventhttpclient.response import HTTPParseError

from tests.load.forms import Form, Request
from tests.load.mixes import Picture
from tests.load.record import ANSWERED, FAILED, REFUSED, Record, Sample, size_class

_IDLE_S = 2.0  # a connection idle for longer may be closed on us at any moment


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much may be under way.

    connections: at once; what comes then waits, and its time counts
    waiting: requests that wait or are under way; one more is a failure
    timeout_s: from when it was due
    """

    connections: int = 500
    waiting: int = 20_000
    timeout_s: float = 30.0


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP answer, and whether it has a Retry-After."""

    status: int
    retry_after: bool
    body: bytes


class Connections:
    """HTTP connections that are used again while they are fresh."""

    def __init__(self, host: str, headers: dict[str, str], most: int) -> None:
        self._host = host
        self._prefix = urlsplit(host).path.rstrip("/")  # of a proxy
        self._headers = headers
        self._free = BoundedSemaphore(most)
        self._idle: list[tuple[float, HTTPClient]] = []

    def post(self, ask: Callable[[], Request]) -> Reply:
        """What the service replies; the request is made when there is a connection for it."""
        with self._free:
            request = ask()
            return self._send("POST", request.path, request.body, request.headers)

    def get(self, path: str) -> Reply:
        """The same, of GET."""
        with self._free:
            return self._send("GET", path, b"", {})

    def _send(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> Reply:
        client, reply = self._take(), None
        try:
            answer = client.request(method, self._prefix + path, body, headers)
            retry_after = answer.get("retry-after") is not None
            reply = Reply(int(answer.status_code), retry_after, bytes(answer.read()))
        finally:  # also when a timeout strikes
            if reply is None:
                client.close()
            else:
                self._idle.append((time.perf_counter(), client))
        return reply

    def _take(self) -> HTTPClient:
        while self._idle:
            since, client = self._idle.pop()
            if time.perf_counter() - since < _IDLE_S:
                return client
            client.close()
        return HTTPClient.from_url(
            self._host, headers=self._headers, connection_timeout=60, network_timeout=600
        )


class Traffic:
    """Sends pictures drawn at random and records what comes back.

    told: called with each request's class of size, seconds, bytes, and what failed if it did
    """

    def __init__(
        self,
        connections: Connections,
        pictures: Sequence[Picture],
        form: Form,
        path: str,
        together: int,
        record: Record,
        told: Callable[[str, float, int, str | None], None],
        bounds: Bounds,
        rng: random.Random,
    ) -> None:
        self._connections = connections
        self._pictures = pictures
        self._form = form
        self._path = path
        self._together = together
        self._record = record
        self._told = told
        self._bounds = bounds
        self._rng = rng
        self._under_way = Pool()
        self._due: dict[int, float] = {}
        self._count = 0
        self.ended = False

    def send(self, due: float) -> gevent.Greenlet | None:
        """Begin a request that was due then (of time.perf_counter)."""
        if self.ended:
            return None
        pictures = [self._rng.choice(self._pictures) for _ in range(self._together)]
        if len(self._under_way) >= self._bounds.waiting:
            self._keep(due, 0.0, pictures, FAILED, "too many requests wait", False, 0)
            return None
        return self._under_way.spawn(self._one, due, pictures)

    def finish(self) -> None:
        """Send nothing more, and wait for what is under way."""
        self.ended = True
        self._under_way.join(self._bounds.timeout_s + 5)

    @property
    def in_flight(self) -> int:
        """Requests that were due and are not answered."""
        return len(self._under_way)

    def overdue(self, seconds: float) -> int:
        """Those of them that were due longer ago than that."""
        now = time.perf_counter()
        return sum(now - due > seconds for due in self._due.values())

    def _one(self, due: float, pictures: list[Picture]) -> None:
        lag = time.perf_counter() - due
        self._count += 1
        number = self._count
        self._due[number] = due
        length = 0
        try:
            with gevent.Timeout(max(self._bounds.timeout_s - lag, 0.001)):
                reply = self._connections.post(lambda: self._form.ask(pictures, self._path))
            outcome, why, first = self._read(pictures, reply)
            length = len(reply.body)
        except gevent.Timeout:
            outcome, why, first = FAILED, "timeout", False
        except (OSError, HTTPParseError, ValueError, LookupError) as exc:  # or a malformed answer
            outcome, why, first = FAILED, f"{type(exc).__name__}: {exc}", False
        finally:
            del self._due[number]
        self._keep(due, lag, pictures, outcome, why, first, length)

    def _read(self, pictures: list[Picture], reply: Reply) -> tuple[str, str | None, bool]:
        if reply.status in (429, 503) and reply.retry_after:
            return REFUSED, None, False
        if reply.status != 200:
            return FAILED, f"status {reply.status}", False
        answers = self._form.read(reply.body)
        if errors := [answer.error for answer in answers if answer.error is not None]:
            return FAILED, errors[0], False
        first = False
        for picture, answer in zip(pictures, answers, strict=True):
            self._record.answer(picture.number, answer)
            first |= self._record.first(answer.used or (picture.width, picture.height))
        return ANSWERED, None, first

    def _keep(
        self,
        due: float,
        lag: float,
        pictures: list[Picture],
        outcome: str,
        why: str | None,
        first: bool,
        length: int,
    ) -> None:
        seconds = time.perf_counter() - due
        name = size_class(max(picture.pixels for picture in pictures))
        at = time.time() - seconds
        self._record.samples.append(Sample(at, seconds, lag, name, first, outcome, len(pictures)))
        if why is not None:
            self._record.failures[why] += 1
        self._told(name if outcome == ANSWERED else f"{name} {outcome}", seconds, length, why)
