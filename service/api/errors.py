"""Errors as RFC 9457 problem details; under /v2 as that protocol has them."""

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import Scope

from service.api.findings import told
from service.api.protection import protective_headers
from service.errors import AnypoolError, BadParameter, TryAgain, Unauthorized

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


def draw(request_path: str, error: AnypoolError) -> JSONResponse:
    """An error as an answer of its own, as the protocol of that path wants it."""
    return _drawn(request_path, problem(error), _headers(error))


def _drawn(path: str, body: dict[str, Any], headers: Mapping[str, str] | None) -> JSONResponse:
    status: int = body["status"]
    if path == _OIP or path.startswith(f"{_OIP}/"):
        return JSONResponse({"error": body["detail"]}, status, headers)
    return JSONResponse(body, status, headers, media_type="application/problem+json")


def _headers(error: AnypoolError) -> dict[str, str]:
    if isinstance(error, TryAgain):
        return {"Retry-After": str(error.retry_after)}
    if isinstance(error, Unauthorized):
        return {"WWW-Authenticate": "Bearer"}
    return {}


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
    return draw(path_of(request.scope), BadParameter(told(exc.errors())))


async def _http(request: Request, exc: Exception) -> JSONResponse:
    assert isinstance(exc, HTTPException)
    name, title = _TITLES.get(exc.status_code, ("error", HTTPStatus(exc.status_code).phrase))
    path = path_of(request.scope)
    body = {
        "type": TYPE_PREFIX + name,
        "title": title,
        "status": exc.status_code,
        "detail": f"{request.method} {path}: {exc.detail}. See /docs",
    }
    headers = dict(exc.headers or {})
    if headers.get("Allow") == "GET":  # the envelope answers HEAD wherever there is GET
        headers["Allow"] = "GET, HEAD"
    return _drawn(path, body, headers)


async def _unforeseen(request: Request, exc: Exception) -> JSONResponse:
    path = path_of(request.scope)
    logger.error("unforeseen error in %s %s", request.method, path, exc_info=exc)
    answer = draw(path, AnypoolError("an error that nobody foresaw; the service's log has it"))
    answer.headers["X-Request-Id"] = getattr(request.state, "request_id", "")
    answer.raw_headers.extend(protective_headers(path))  # this answer passes by the envelope
    return answer
