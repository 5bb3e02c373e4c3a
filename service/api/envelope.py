"""Around every request: an id, a log line, a count of those in progress, an end when it is due,
and headers that tell browsers what not to do with the answer."""

import asyncio
import logging
import random
import re
import time

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.deps import Service
from service.api.errors import path_of
from service.api.protection import protective_headers
from service.facts import Facts

logger = logging.getLogger(__name__)

_ID = re.compile(r"[\w.:-]{1,128}", re.ASCII)
_GONE = 499  # as nginx logs it: the client went away before it was answered
_QUIET = ("/healthz", "/readyz", "/metrics", "/v2/health/live", "/v2/health/ready")


class Envelope:
    """ASGI middleware, plain: it never changes bodies."""

    def __init__(self, app: ASGIApp, parts: Service) -> None:
        self._app = app
        self._parts = parts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        facts = _facts(scope, headers)
        if facts.method == "HEAD":  # as GET; the server leaves the body out
            scope = {**scope, "method": "GET"}
        scope.setdefault("state", {}).update(request_id=facts.request_id, facts=facts)
        chunked = "transfer-encoding" in headers
        arrived = headers.get("content-length", "0") == "0" and not chunked
        # A proxy before us may go by the other length, and see another request behind this one.
        doubtful = chunked and "content-length" in headers

        async def arrival() -> Message:
            nonlocal arrived
            message = await receive()
            facts.size += len(message.get("body", b""))
            arrived = arrived or not message.get("more_body", False)
            return message

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                facts.status = message["status"]
                answered = list(message["headers"])
                own = {name for name, _ in answered}
                answered += [h for h in protective_headers(facts.path) if h[0] not in own]
                answered.append((b"x-request-id", facts.request_id.encode()))
                if self._parts.draining or not arrived or doubtful:  # this answer is the last one
                    answered.append((b"connection", b"close"))
                message["headers"] = answered
            await send(message)

        self._parts.active += 1
        try:
            await self._app(scope, arrival, answer)
        except ClientDisconnect:
            facts.status = _GONE
        except asyncio.CancelledError:  # so it is on Ray
            facts.status = _GONE
            raise
        except Exception:
            facts.status = 500  # answered by Starlette, outside of this
            raise
        finally:
            self._parts.active -= 1
            self._tell(scope, headers, facts)
            facts.outcomes = ()  # a connection that stays open keeps the scope of its last request

    def _tell(self, scope: Scope, headers: Headers, facts: Facts) -> None:
        """Count, trace and log a request that is over."""
        facts.ended = time.monotonic()
        facts.route = getattr(scope.get("route"), "path", None)
        facts.key = getattr(scope["state"].get("client"), "name", None)
        self._parts.metrics.request(facts.route or "unknown", facts.status)
        if facts.path in _QUIET:
            return
        if self._parts.traces is not None:
            self._parts.traces.request(facts, headers, scope["scheme"])
        if logger.isEnabledFor(logging.INFO):
            logger.info(
                "%s %s %d", facts.method, facts.path, facts.status, extra={"fields": facts.fields()}
            )


def _facts(scope: Scope, headers: Headers) -> Facts:
    request_id = headers.get("x-request-id", "")
    if not _ID.fullmatch(request_id):
        request_id = f"{random.getrandbits(128):032x}"
    client = scope.get("client")
    return Facts(
        request_id=request_id,
        method=scope["method"],
        path=path_of(scope),
        begun=time.monotonic(),
        client=client[0] if client else None,
    )
