"""Before any route: who is asking, may they, and is there room for what they send."""

from typing import Literal

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.deps import Service
from service.api.errors import draw, path_of
from service.errors import AnypoolError, Forbidden, NotFound, Overloaded, Unauthorized
from service.keys import Client
from service.settings import PREFIX

Access = Literal["open", "key", "closed"]

# Probes and pages. Every other path, known or not, needs a key when there are keys.
_OPEN = frozenset(
    ("/", "/docs", "/openapi.json", "/healthz", "/readyz", "/v2/health/live", "/v2/health/ready")
)
_FILES = "/static/"  # of the playground
_METRICS = "/metrics"
_CONTROL, _ACTIONS = "/v2/repository/", ("/load", "/unload")


class Gate:
    """ASGI middleware, plain: lets a request in with its client, or answers it.

    By path and not by route, so that a route that is added later is not open by mistake.
    """

    def __init__(self, app: ASGIApp, parts: Service) -> None:
        self._app = app
        self._parts = parts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = path_of(scope)
        headers = Headers(scope=scope)
        try:
            client = self._admitted(path, headers)
            name = None if client is None else client.name
            self._check_room(headers, name)
        except AnypoolError as exc:
            await draw(path, exc)(scope, receive, send)
            return
        scope.setdefault("state", {})["client"] = client
        held = 0

        def hold(size: int) -> None:
            nonlocal held
            if not self._parts.bodies.fits(size, name):
                raise self._full()
            self._parts.bodies.take(size, name)
            held += size

        scope["state"]["hold"] = hold  # for what a body becomes when it is inflated

        async def arrival() -> Message:
            message = await receive()
            if size := len(message.get("body", b"")):
                hold(size)
            return message

        try:
            await self._app(scope, arrival, send)
        finally:
            self._parts.bodies.give_back(held, name)

    def _admitted(self, path: str, headers: Headers) -> Client | None:
        """Who is asking; raises Unauthorized, Forbidden and NotFound."""
        if not path.isprintable():  # routes also take /metrics with a line break behind it
            raise NotFound("no path has such characters")
        settings = self._parts.settings
        if path == _METRICS:
            return self._through("metrics_access", settings.metrics_access, headers)
        if _CONTROL in path and path.endswith(_ACTIONS):
            client = self._through("control_access", settings.control_access, headers)
            if settings.control_access == "key" and client is not None and not client.admin:
                raise Forbidden("controlling models needs a key with admin: true")
            return client if settings.control_access == "key" else self._known(headers)
        return None if path in _OPEN or path.startswith(_FILES) else self._known(headers)

    def _through(self, setting: str, access: Access, headers: Headers) -> Client | None:
        if access == "closed":
            raise Forbidden(f"closed here: {PREFIX}{setting.upper()} is closed")
        return self._known(headers) if access == "key" else None

    def _known(self, headers: Headers) -> Client | None:
        """Whose key was sent; None when there are no keys. Raises Unauthorized."""
        keys = self._parts.keys
        if keys is None:
            return None
        sent = _key(headers)
        if not sent:
            raise Unauthorized("send your key as Authorization: Bearer KEY, or as X-API-Key: KEY")
        client = keys.find(sent)
        if client is None:
            raise Unauthorized("nobody has this key")
        return client

    def _check_room(self, headers: Headers, client: str | None) -> None:
        """Refuse a body that does not fit now before it is read. Saying how long it is holds no
        room: who says much and sends little keeps nobody out."""
        declared = headers.get("content-length", "")
        length = int(declared) if declared.isdecimal() else 0
        largest = self._parts.settings.max_body_bytes  # beyond it the route answers, for good
        if length <= largest and not self._parts.bodies.fits(length, client):
            raise self._full()

    def _full(self) -> Overloaded:
        wait = self._parts.scheduler.retry_after()
        return Overloaded(
            f"too many bodies are being read or worked on; try again in {wait} s", wait
        )


def _key(headers: Headers) -> str:
    scheme, _, key = headers.get("authorization", "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "").strip()
