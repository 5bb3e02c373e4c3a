"""Headers of every answer that tell browsers what not to do with it."""

from collections.abc import Sequence

Headers = Sequence[tuple[bytes, bytes]]  # as ASGI has them, names in lower case

_ALWAYS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_NOTHING = "default-src 'none'; frame-ancestors 'none'"
# By path: pages, which load what is named here and nothing else.
_PAGES = {
    "/": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'; "
    "connect-src 'self'; script-src 'self'; worker-src 'self'; style-src 'self'; "
    "img-src 'self'",
    "/docs": "default-src 'none'; frame-ancestors 'none'; connect-src 'self'; "
    "script-src 'unsafe-inline' https://cdn.jsdelivr.net; "
    "style-src 'unsafe-inline' https://cdn.jsdelivr.net; "
    "img-src 'self' data: https://fastapi.tiangolo.com",
}


def _encoded(policy: str) -> Headers:
    named = {**_ALWAYS, "Content-Security-Policy": policy}
    return [(name.lower().encode(), value.encode()) for name, value in named.items()]


_API = _encoded(_NOTHING)
_OF_PAGES = {path: _encoded(policy) for path, policy in _PAGES.items()}


def protective_headers(path: str) -> Headers:
    """Of an answer to that path."""
    return _OF_PAGES.get(path, _API)
