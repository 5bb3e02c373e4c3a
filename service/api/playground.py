"""The playground: a page for visitors, and the files in service/static that it is made of."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from fastapi import APIRouter, Request, Response

from service.errors import NotFound

FOLDER = Path(__file__).parent.parent / "static"
_PAGE = "index.html"
_TYPES = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
    ".webp": "image/webp",
}


@dataclass(frozen=True, slots=True)
class File:
    """A file as it is sent."""

    body: bytes
    media_type: str
    tag: str  # changes with the body: browsers ask each time, and are sent only what is new


def playground() -> APIRouter:
    """The page at `/` and its files below `/static/`, read once: no path can lead out of them."""
    files = {path.relative_to(FOLDER).as_posix(): _read(path) for path in _paths()}
    router = APIRouter(include_in_schema=False)

    @router.get("/")
    async def page(request: Request) -> Response:
        return _answer(request, files[_PAGE])

    @router.get("/static/{name:path}")
    async def file(request: Request, name: str) -> Response:
        if name not in files:
            raise NotFound(f"the playground has no file {name!r}")
        return _answer(request, files[name])

    return router


def _paths() -> list[Path]:
    return [path for path in FOLDER.rglob("*") if path.suffix in _TYPES]


def _read(path: Path) -> File:
    body = path.read_bytes()
    return File(body, _TYPES[path.suffix], f'"{hashlib.sha256(body).hexdigest()[:16]}"')


def _answer(request: Request, file: File) -> Response:
    headers = {"ETag": file.tag, "Cache-Control": "no-cache"}
    known = request.headers.get("if-none-match", "").replace("W/", "").split(",")
    if file.tag in (tag.strip() for tag in known):
        return Response(status_code=304, headers=headers)
    return Response(file.body, media_type=file.media_type, headers=headers)
