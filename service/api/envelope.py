"""Around every request: an id, a log line, a count of those in progress."""

import logging
import re
import time
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.deps import Service

logger = logging.getLogger(__name__)

_ID = re.compile(r"[\w.:-]{1,128}", re.ASCII)
_QUIET = ("/healthz", "/readyz", "/metrics")


class Envelope:
    """ASGI middleware, plain: it never touches bodies."""

    def __init__(self, app: ASGIApp, parts: Service) -> None:
        self._app = app
        self._parts = parts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun, status = time.perf_counter(), 0
        request_id = Headers(scope=scope).get("x-request-id", "")
        if not _ID.fullmatch(request_id):
            request_id = uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = request_id
                if self._parts.draining:
                    headers["Connection"] = "close"
            await send(message)

        self._parts.active += 1
        try:
            await self._app(scope, receive, answer)
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
                    request_id, scope["method"], scope["path"], status, milliseconds,
                )  # fmt: skip
