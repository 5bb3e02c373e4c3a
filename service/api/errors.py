"""Errors as RFC 9457 problem details, and as the Open Inference Protocol has them."""

import logging
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import Scope

from service.errors import AnypoolError, BadParameter, Unavailable

logger = logging.getLogger(__name__)

TYPE_PREFIX = "/problems/"  # a relative reference: wherever the service stands
_OIP = "/v2"  # the Open Inference Protocol
_TITLES = {404: ("not-found", "No such page"), 405: ("method-not-allowed", "Method not allowed")}


def problem(error: AnypoolError) -> dict[str, Any]:
    """The members of a problem detail."""
    return {
        "type": TYPE_PREFIX + error.type,
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
    }


def response(error: AnypoolError) -> JSONResponse:
    """An error as an answer of its own."""
    headers = {}
    if isinstance(error, Unavailable):
        headers["Retry-After"] = str(error.retry_after)
    return JSONResponse(
        problem(error), error.status, headers=headers, media_type="application/problem+json"
    )


def draw(path: str, error: AnypoolError) -> JSONResponse:
    """An error as clients of that path (see path_of) expect it: under /v2 as {"error": "…"}."""
    answer = response(error)
    if not path.startswith(_OIP):
        return answer
    headers = {name: answer.headers[name] for name in ("Retry-After",) if name in answer.headers}
    return JSONResponse({"error": error.detail}, error.status, headers=headers)


def path_of(scope: Scope) -> str:
    """The path of a request below the root path."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


def install(app: FastAPI) -> None:
    """Answer every error of `app` as a problem detail."""
    app.add_exception_handler(AnypoolError, _ours)
    app.add_exception_handler(RequestValidationError, _parameters)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _unforeseen)


async def _ours(request: Request, exc: Exception) -> JSONResponse:
    assert isinstance(exc, AnypoolError)
    return draw(path_of(request.scope), exc)


async def _parameters(request: Request, exc: Exception) -> JSONResponse:
    assert isinstance(exc, RequestValidationError)
    wrong = "; ".join(f"{e['loc'][-1]}: {e['msg']}" for e in exc.errors())
    return draw(path_of(request.scope), BadParameter(wrong))


async def _http(request: Request, exc: Exception) -> JSONResponse:
    assert isinstance(exc, HTTPException)
    detail = f"{request.method} {request.url.path}: {exc.detail}. See /docs"
    if path_of(request.scope).startswith(_OIP):
        return JSONResponse({"error": detail}, exc.status_code, headers=exc.headers)
    name, title = _TITLES.get(exc.status_code, ("error", HTTPStatus(exc.status_code).phrase))
    body = {
        "type": TYPE_PREFIX + name,
        "title": title,
        "status": exc.status_code,
        "detail": detail,
    }
    headers = dict(exc.headers or {})
    if headers.get("Allow") == "GET":  # the envelope answers HEAD wherever there is GET
        headers["Allow"] = "GET, HEAD"
    return JSONResponse(
        body, exc.status_code, headers=headers, media_type="application/problem+json"
    )


async def _unforeseen(request: Request, exc: Exception) -> JSONResponse:
    logger.error("unforeseen error in %s %s", request.method, request.url.path, exc_info=exc)
    error = AnypoolError("an error that nobody foresaw; the service's log has it")
    answer = draw(path_of(request.scope), error)
    answer.headers["X-Request-Id"] = getattr(request.state, "request_id", "")
    return answer
