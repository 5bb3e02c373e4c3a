"""Headers of every answer that tell browsers what not to do with it."""

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
    "/docs": "default-src 'none'; frame-ancestors 'none'; connect-src 'self'; "
    "script-src 'unsafe-inline' https://cdn.jsdelivr.net; "
    "style-src 'unsafe-inline' https://cdn.jsdelivr.net; "
    "img-src 'self' data: https://fastapi.tiangolo.com",
}


def protective_headers(path: str) -> dict[str, str]:
    """Names and values, for an answer to that path."""
    return {**_ALWAYS, "Content-Security-Policy": _PAGES.get(path, _NOTHING)}
