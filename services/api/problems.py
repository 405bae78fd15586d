"""Every refusal as application/problem+json (RFC 9457) with a stable `code`; the one place that maps errors to HTTP."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, ClassVar, cast

import orjson
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from services.featurestore.errors import (
    CommitUnknown,
    FeatureStoreError,
    InvalidRequest,
    NotOwner,
    SchemaSkew,
    ShardUnavailable,
    SlotMapError,
)

RETRY_AFTER_S = 1
"""A failover takes under 2 s and an overload drains in milliseconds; HTTP knows no fractions."""

logger = logging.getLogger(__name__)


class Problem(Exception):
    """A refusal. `code` is for programs, the message says what to do."""

    status: ClassVar[HTTPStatus] = HTTPStatus.INTERNAL_SERVER_ERROR
    code: ClassVar[str] = "internal"
    headers: ClassVar[Mapping[str, str]] = {}

    def response(self) -> Response:
        return problem(self.status, self.code, str(self), headers=self.headers)


class Unauthorized(Problem):
    status = HTTPStatus.UNAUTHORIZED
    code = "unauthorized"
    headers: ClassVar[Mapping[str, str]] = {"www-authenticate": "Bearer"}


class Overloaded(Problem):
    status = HTTPStatus.SERVICE_UNAVAILABLE
    code = "overloaded"
    headers: ClassVar[Mapping[str, str]] = {"retry-after": str(RETRY_AFTER_S)}


class NoModelLoaded(Problem):
    status = HTTPStatus.SERVICE_UNAVAILABLE
    code = "no_model"
    headers: ClassVar[Mapping[str, str]] = {"retry-after": str(RETRY_AFTER_S)}


class ScoringFailed(Problem):
    status = HTTPStatus.SERVICE_UNAVAILABLE
    code = "scoring_failed"
    headers: ClassVar[Mapping[str, str]] = {"retry-after": str(RETRY_AFTER_S)}


class ScorerUnavailable(Problem):
    status = HTTPStatus.SERVICE_UNAVAILABLE
    code = "scorer_unavailable"
    headers: ClassVar[Mapping[str, str]] = {"retry-after": str(RETRY_AFTER_S)}


class DeadlineExceeded(Problem):
    """The caller no longer waits, or should not."""

    status = HTTPStatus.GATEWAY_TIMEOUT
    code = "deadline_exceeded"


class FeaturesNotFound(Problem):
    status = HTTPStatus.NOT_FOUND
    code = "features_not_found"


class ContractBroken(Problem):
    """`errors` are pydantic's; what the client sent is not repeated."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY
    code = "invalid_request"

    def __init__(self, message: str, errors: Sequence[Mapping[str, Any]]) -> None:
        super().__init__(message)
        self._errors = [{"loc": list(item["loc"]), "msg": item["msg"], "type": item["type"]} for item in errors]

    def response(self) -> Response:
        return problem(self.status, self.code, str(self), errors=self._errors)


STORE_PROBLEMS: Mapping[type[FeatureStoreError], tuple[HTTPStatus, str]] = {
    CommitUnknown: (HTTPStatus.SERVICE_UNAVAILABLE, "commit_unknown"),
    ShardUnavailable: (HTTPStatus.SERVICE_UNAVAILABLE, "shard_unavailable"),
    SlotMapError: (HTTPStatus.SERVICE_UNAVAILABLE, "slot_map_unavailable"),
    SchemaSkew: (HTTPStatus.SERVICE_UNAVAILABLE, "schema_skew"),
    NotOwner: (HTTPStatus.CONFLICT, "slot_moved"),
    InvalidRequest: (HTTPStatus.UNPROCESSABLE_ENTITY, "refused_by_store"),
}
"""`shard_unavailable` promises that nothing was applied; `commit_unknown` promises nothing."""


def problem(
    status: HTTPStatus, code: str, detail: str, *, headers: Mapping[str, str] | None = None, **members: Any
) -> Response:
    """The response; `members` are additional ones of the problem object."""
    content = {"type": "about:blank", "title": status.phrase, "status": status, "code": code, "detail": detail}
    return Response(
        orjson.dumps(content | members),
        status_code=status,
        media_type="application/problem+json",
        headers=dict(headers or {}),
    )


def install(app: FastAPI) -> None:
    """Replace the framework's own error bodies."""
    app.add_exception_handler(Problem, _refused)
    app.add_exception_handler(FeatureStoreError, _store_failed)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _not_routed)
    app.add_exception_handler(Exception, _failed)


async def _refused(_: Request, error: Exception) -> Response:
    return cast(Problem, error).response()


async def _store_failed(_: Request, error: Exception) -> Response:
    known = STORE_PROBLEMS.get(type(cast(FeatureStoreError, error)))
    if known is None:
        logger.error("the feature store failed", exc_info=error)
        return problem(HTTPStatus.INTERNAL_SERVER_ERROR, Problem.code, "the feature store failed; see the log")
    status, code = known
    retry = {"retry-after": str(RETRY_AFTER_S)} if status is HTTPStatus.SERVICE_UNAVAILABLE else None
    return problem(status, code, str(error), headers=retry)


async def _invalid(_: Request, error: Exception) -> Response:
    errors = cast(RequestValidationError, error).errors()
    return ContractBroken("the request breaks the contract: correct what `errors` names", errors).response()


async def _not_routed(_: Request, error: Exception) -> Response:
    refusal = cast(HTTPException, error)
    status = HTTPStatus(refusal.status_code)
    code = status.phrase.lower().replace(" ", "_")
    return problem(status, code, refusal.detail, headers=refusal.headers)


async def _failed(_: Request, error: Exception) -> Response:
    # The server logs the traceback; the client learns nothing about the inside.
    return problem(HTTPStatus.INTERNAL_SERVER_ERROR, Problem.code, "the replica failed; the fault is in its log")
