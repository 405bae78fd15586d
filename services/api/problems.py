"""Every refusal as application/problem+json (RFC 9457) with a stable `code`; the one place that maps errors to HTTP."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, ClassVar, Final, cast

import orjson
from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from services.api.observation import observed, request_fields
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


CODES: Final[Mapping[str, HTTPStatus]] = {
    "bad_request": HTTPStatus.BAD_REQUEST,
    "invalid_timeout": HTTPStatus.BAD_REQUEST,
    "unauthorized": HTTPStatus.UNAUTHORIZED,
    "not_found": HTTPStatus.NOT_FOUND,
    "features_not_found": HTTPStatus.NOT_FOUND,
    "unknown_version": HTTPStatus.NOT_FOUND,
    "method_not_allowed": HTTPStatus.METHOD_NOT_ALLOWED,
    "request_timeout": HTTPStatus.REQUEST_TIMEOUT,
    "slot_moved": HTTPStatus.CONFLICT,
    "illegal_transition": HTTPStatus.CONFLICT,
    "reload_in_progress": HTTPStatus.CONFLICT,
    "length_required": HTTPStatus.LENGTH_REQUIRED,
    "body_too_large": HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    "invalid_request": HTTPStatus.UNPROCESSABLE_ENTITY,
    "refused_by_store": HTTPStatus.UNPROCESSABLE_ENTITY,
    "candidate_refused": HTTPStatus.UNPROCESSABLE_ENTITY,
    "artifact_corrupt": HTTPStatus.UNPROCESSABLE_ENTITY,
    "internal": HTTPStatus.INTERNAL_SERVER_ERROR,
    "overloaded": HTTPStatus.SERVICE_UNAVAILABLE,
    "no_model": HTTPStatus.SERVICE_UNAVAILABLE,
    "scoring_failed": HTTPStatus.SERVICE_UNAVAILABLE,
    "scorer_unavailable": HTTPStatus.SERVICE_UNAVAILABLE,
    "shard_unavailable": HTTPStatus.SERVICE_UNAVAILABLE,
    "commit_unknown": HTTPStatus.SERVICE_UNAVAILABLE,
    "slot_map_unavailable": HTTPStatus.SERVICE_UNAVAILABLE,
    "schema_skew": HTTPStatus.SERVICE_UNAVAILABLE,
    "artifact_store_unavailable": HTTPStatus.SERVICE_UNAVAILABLE,
    "etcd_unavailable": HTTPStatus.SERVICE_UNAVAILABLE,
    "reload_interrupted": HTTPStatus.SERVICE_UNAVAILABLE,
    "pointer_pending": HTTPStatus.SERVICE_UNAVAILABLE,
    "deadline_exceeded": HTTPStatus.GATEWAY_TIMEOUT,
}
"""Every code that a replica answers with, and its status. docs/errors.md says what each means and what to do."""


class Problem(Exception):
    """A refusal. `code` is for programs, the message says what to do."""

    code: ClassVar[str] = "internal"

    def response(self) -> Response:
        return problem(self.code, str(self))


class BadRequest(Problem):
    code = "bad_request"


class InvalidTimeout(Problem):
    code = "invalid_timeout"


class RequestTimedOut(Problem):
    """The caller did not send what it announced, so that nothing else can come on its connection."""

    code = "request_timeout"

    def response(self) -> Response:
        return problem(self.code, str(self), headers={"connection": "close"})


class Unauthorized(Problem):
    code = "unauthorized"

    def response(self) -> Response:
        return problem(self.code, str(self), headers={"www-authenticate": "Bearer"})


class Overloaded(Problem):
    code = "overloaded"


class NoModelLoaded(Problem):
    code = "no_model"


class ScoringFailed(Problem):
    code = "scoring_failed"


class ScorerUnavailable(Problem):
    code = "scorer_unavailable"


class DeadlineExceeded(Problem):
    """The caller no longer waits, or should not."""

    code = "deadline_exceeded"


class FeaturesNotFound(Problem):
    """`members`: `staleness_s`, where it is known how old this answer may be."""

    code = "features_not_found"

    def __init__(self, message: str, **members: Any) -> None:
        super().__init__(message)
        self._members = members

    def response(self) -> Response:
        return problem(self.code, str(self), **self._members)


class ContractBroken(Problem):
    """`errors` are pydantic's; what the client sent is not repeated."""

    code = "invalid_request"

    def __init__(self, message: str, errors: Sequence[Mapping[str, Any]]) -> None:
        super().__init__(message)
        self._errors = [{"loc": list(item["loc"]), "msg": item["msg"], "type": item["type"]} for item in errors]

    def response(self) -> Response:
        return problem(self.code, str(self), errors=self._errors)


STORE_PROBLEMS: Final[Mapping[type[FeatureStoreError], str]] = {
    CommitUnknown: "commit_unknown",
    ShardUnavailable: "shard_unavailable",
    SlotMapError: "slot_map_unavailable",
    SchemaSkew: "schema_skew",
    NotOwner: "slot_moved",
    InvalidRequest: "refused_by_store",
}
"""`shard_unavailable` promises that nothing was applied; `commit_unknown` promises nothing."""

NOT_ROUTED: Final = {HTTPStatus.NOT_FOUND: "not_found", HTTPStatus.METHOD_NOT_ALLOWED: "method_not_allowed"}


class ProblemResponse(Response):
    """Tells the layer its code when it is sent."""

    media_type = "application/problem+json"

    def __init__(self, code: str, content: bytes, status: HTTPStatus, headers: Mapping[str, str]) -> None:
        super().__init__(content, status_code=status, headers=headers)
        self._code = code

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        observation = observed(scope)
        if observation is not None:
            observation.code = self._code
        await super().__call__(scope, receive, send)


def problem(code: str, detail: str, *, headers: Mapping[str, str] | None = None, **members: Any) -> Response:
    """The response for a code of the table; `members` are additional ones of the problem object."""
    status = CODES[code]
    content = {"type": "about:blank", "title": status.phrase, "status": status, "code": code, "detail": detail}
    retry = {"retry-after": str(RETRY_AFTER_S)} if status is HTTPStatus.SERVICE_UNAVAILABLE else {}
    return ProblemResponse(code, orjson.dumps(content | members), status, {**retry, **(headers or {})})


def install(app: FastAPI) -> None:
    """Replace the framework's own error bodies."""
    app.add_exception_handler(Problem, _refused)
    app.add_exception_handler(FeatureStoreError, _store_failed)
    app.add_exception_handler(ClientDisconnect, _gone)
    app.add_exception_handler(HTTPException, _not_routed)
    app.add_exception_handler(Exception, _failed)


async def _refused(_: Request, error: Exception) -> Response:
    return cast(Problem, error).response()


async def _store_failed(request: Request, error: Exception) -> Response:
    known = STORE_PROBLEMS.get(type(cast(FeatureStoreError, error)))
    if known is None:
        logger.error("the feature store failed", exc_info=error, extra={"fields": request_fields(request.scope)})
        return problem(Problem.code, "the feature store failed; see the log")
    return problem(known, str(error))


async def _gone(_: Request, __: Exception) -> Response:
    """Nobody reads it, but it is counted for what it was."""
    return problem(BadRequest.code, "the request ended before its body was complete")


async def _not_routed(_: Request, error: Exception) -> Response:
    refusal = cast(HTTPException, error)
    code = NOT_ROUTED.get(HTTPStatus(refusal.status_code), BadRequest.code)
    return problem(code, refusal.detail, headers=refusal.headers)


async def _failed(_: Request, error: Exception) -> Response:
    # The layer logs the traceback; the client learns nothing about the inside.
    return problem(Problem.code, "the replica failed; the fault is in its log")
