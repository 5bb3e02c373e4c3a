"""A steady, light load of good requests, every answer of which is looked at.

A client asks for one photo after the other, whatever happens; the first opens a connection for
each, the others keep theirs. What came back is `right`; `wrong`; `cut`, an answer that ends in its
middle; `reset`, a connection that ended without one; `refused`, no connection; `silent`, nothing
within a minute; or a status, as `503`.
"""

import http.client
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from tests.conftest import Photo, photo

PHOTOS = "bee", "castle", "cup", "goldfish", "hammer"  # no two alike, and all recognised
AT_MOST_S = 60.0
_PATH = "/v1/classify?top_k=1&timeout_ms=20000"
_CLIENTS, _PAUSE_S = 3, 0.05
_NEAR = 1e-4  # of a probability; another photo's is further away


@dataclass(frozen=True, slots=True)
class Ask:
    """A good request, and whether the JSON that answers it is right."""

    body: bytes
    right: Callable[[Any], bool]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one request came to; both times monotonic."""

    sent: float
    ended: float
    what: str


class Load:
    """Clients that ask from the start of a `with` block to its end; they begin with right answers.

    A fault begins with `strike`; figures are of what ended since then.
    """

    def __init__(self, url: str, asks: Sequence[Ask]) -> None:
        self._url = url
        self._path = urlsplit(url).path + _PATH
        self._asks = asks
        self._stop = threading.Event()
        self._clients = [threading.Thread(target=self._ask, args=(n,)) for n in range(_CLIENTS)]
        self._outcomes: list[Outcome] = []
        self.struck = 0.0

    def __enter__(self) -> Self:
        for client in self._clients:
            client.start()
        self.wait_for_right()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop.set()
        for client in self._clients:
            client.join(AT_MOST_S)

    def strike(self) -> None:
        """The fault begins now."""
        self.struck = time.monotonic()

    def wait_for_right(self, more: int = 20) -> None:
        """Return when so many answers in a row were right, to requests sent from now on."""
        now = time.monotonic()
        while True:
            last = [o.what for o in list(self._outcomes) if o.sent >= now][-more:]
            if last == ["right"] * more:
                return
            assert time.monotonic() < now + AT_MOST_S, f"no normal service: {self.seen}"
            time.sleep(0.02)

    @property
    def since(self) -> list[Outcome]:
        """What ended since the fault began."""
        return [outcome for outcome in list(self._outcomes) if outcome.ended >= self.struck]

    @property
    def seen(self) -> Counter[str]:
        """How often each thing came back."""
        return Counter(outcome.what for outcome in self.since)

    @property
    def normal_after_s(self) -> float:
        """From the fault to the first of the answers that are all right; 0 when all were."""
        last = max((o.ended for o in self.since if o.what != "right"), default=None)
        if last is None:
            return 0.0
        return min((o.ended for o in self.since if o.ended > last), default=last) - self.struck

    @property
    def slowest_s(self) -> float:
        """The longest that anybody waited, for whatever came."""
        return max(outcome.ended - outcome.sent for outcome in self.since)

    def _ask(self, number: int) -> None:
        connection, keep = _connect(self._url), number > 0
        while not self._stop.wait(_PAUSE_S):
            number += 1
            sent = time.monotonic()
            what = _outcome(connection, self._path, self._asks[number % len(self._asks)])
            self._outcomes.append(Outcome(sent, time.monotonic(), what))
            if not keep:
                connection.close()
        connection.close()


def photos(url: str) -> list[Ask]:
    """Photos to be answered as each is now, alone: with a class that is right for it."""
    return [_as_now(url, photo(name)) for name in PHOTOS]


def _as_now(url: str, shown: Photo) -> Ask:
    connection = _connect(url)
    connection.request("POST", urlsplit(url).path + _PATH, shown.data)
    index, probability = best(json.load(connection.getresponse()))
    connection.close()
    assert index in shown.truth

    def right(answer: Any) -> bool:
        found, certain = best(answer)
        return found == index and abs(certain - probability) < _NEAR

    return Ask(shown.data, right)


def best(answer: Any) -> tuple[int, float]:
    """Class and probability of the only image's only prediction."""
    ((prediction,),) = (result["predictions"] for result in answer["results"])
    return prediction["index"], prediction["probability"]


def _connect(url: str) -> http.client.HTTPConnection:
    where = urlsplit(url)
    return http.client.HTTPConnection(where.hostname or "", where.port, timeout=AT_MOST_S)


def _outcome(connection: http.client.HTTPConnection, path: str, ask: Ask) -> str:
    try:
        connection.request("POST", path, ask.body)
        answer = connection.getresponse()
        body = answer.read()
    except (http.client.HTTPException, OSError) as exc:
        connection.close()
        return _ending(exc)
    if answer.status != 200:
        hopeless = answer.status == 503 and answer.getheader("Retry-After") is None
        return f"{answer.status} without Retry-After" if hopeless else str(answer.status)
    try:
        return "right" if ask.right(json.loads(body)) else "wrong"
    except (ValueError, KeyError):
        return "wrong"


def _ending(exc: Exception) -> str:
    if isinstance(exc, TimeoutError):
        return "silent"
    if isinstance(exc, ConnectionRefusedError):
        return "refused"
    return "reset" if isinstance(exc, ConnectionError) else "cut"  # RemoteDisconnected is a reset
