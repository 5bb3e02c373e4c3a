"""Around every request: an id, a log line, a count of those in progress, an end when it is due."""

import logging
import random
import re
import time

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.deps import Service

logger = logging.getLogger(__name__)

_ID = re.compile(r"[\w.:-]{1,128}", re.ASCII)
_QUIET = ("/healthz", "/readyz", "/metrics")


class Envelope:
    """ASGI middleware, plain: it never changes bodies."""

    def __init__(self, app: ASGIApp, parts: Service) -> None:
        self._app = app
        self._parts = parts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun, status = time.perf_counter(), 0
        headers = Headers(scope=scope)
        request_id = headers.get("x-request-id", "")
        if not _ID.fullmatch(request_id):
            request_id = f"{random.getrandbits(128):032x}"
        scope.setdefault("state", {})["request_id"] = request_id
        chunked = "transfer-encoding" in headers
        arrived = headers.get("content-length", "0") == "0" and not chunked
        # A proxy before us may go by the other length, and see another request behind this one.
        doubtful = chunked and "content-length" in headers

        async def arrival() -> Message:
            nonlocal arrived
            message = await receive()
            arrived = arrived or not message.get("more_body", False)
            return message

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                answered = MutableHeaders(scope=message)
                answered["X-Request-Id"] = request_id
                if self._parts.draining or not arrived or doubtful:  # this answer is the last one
                    answered["Connection"] = "close"
            await send(message)

        self._parts.active += 1
        try:
            await self._app(scope, arrival, answer)
        except ClientDisconnect:
            status = 499  # as nginx logs it: the client went away before it was answered
        except Exception:
            status = 500  # answered by Starlette, outside of this
            raise
        finally:
            self._parts.active -= 1
            route = getattr(scope.get("route"), "path", "unknown")
            self._parts.metrics.request(route, status)
            if scope["path"] not in _QUIET:
                milliseconds = (time.perf_counter() - begun) * 1000
                logger.info(
                    "%s %s %s %d %.1f ms",
                    request_id, scope["method"], _shown(scope), status, milliseconds,
                )  # fmt: skip


def _shown(scope: Scope) -> str:
    """The path as it was sent: decoded, it may have line breaks, and so forge lines of the log."""
    return bytes(scope.get("raw_path") or scope["path"].encode()).decode(
        "ascii", "backslashreplace"
    )
