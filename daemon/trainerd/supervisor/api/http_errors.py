"""Every error that the API answers with is ``{"error": …, "hint": …}``, and its status says whose turn it is.

404 there is no such thing; 409 not in this state; 422 the request itself is wrong; 503 try again later;
500 a bug of ours, or damage on the disk.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import structlog
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from trainerd.contract.safe_text import safe_text
from trainerd.errors import TrainerdError, TryAgainError, UserError
from trainerd.supervisor.api.models import ProblemDetails

if TYPE_CHECKING:
    from fastapi import FastAPI, Request

log = structlog.get_logger()


class UnknownJobError(UserError):
    """There is no job of that name."""


def answer_problems(app: FastAPI) -> None:
    """Make `app` answer every error in the one form."""
    app.add_exception_handler(TrainerdError, _ours)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _bug)


def problem_responses(*statuses: HTTPStatus) -> dict[int | str, dict[str, Any]]:
    """Describe, for the OpenAPI document, the errors that a route may answer with."""
    always = (HTTPStatus.UNPROCESSABLE_ENTITY,)
    return {
        int(status): {"model": ProblemDetails, "description": status.phrase}
        for status in (*statuses, *always)
    }


async def _ours(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, TrainerdError)
    if isinstance(error, UnknownJobError):
        status = HTTPStatus.NOT_FOUND
    elif isinstance(error, UserError):
        status = HTTPStatus.CONFLICT
    elif isinstance(error, TryAgainError):
        status = HTTPStatus.SERVICE_UNAVAILABLE
    else:
        status = HTTPStatus.INTERNAL_SERVER_ERROR
        log.error("api.failed", error=error.message)
    return _answer(status, error.message, error.hint)


async def _invalid(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    parts = [f"{'.'.join(str(part) for part in one['loc'])}: {one['msg']}" for one in error.errors()]
    return _answer(
        HTTPStatus.UNPROCESSABLE_ENTITY, "; ".join(parts), "the API is described at /v1/openapi.json"
    )


async def _http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    message = f"{request.method} {request.url.path}: {error.detail}"
    return _answer(error.status_code, message, "the API is described at /v1/openapi.json", error.headers)


async def _bug(_request: Request, error: Exception) -> JSONResponse:
    # The server raises it again after this answer, and so the log has the traceback.
    message = f"the supervisor could not answer: {type(error).__name__}"
    return _answer(HTTPStatus.INTERNAL_SERVER_ERROR, message, "its log says more: `trainerd logs --daemon`")


def _answer(status: int, error: str, hint: str | None, headers: Any = None) -> JSONResponse:
    error, hint = safe_text(error), None if hint is None else safe_text(hint)
    return JSONResponse(ProblemDetails(error=error, hint=hint).model_dump(), int(status), headers=headers)
