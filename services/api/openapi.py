"""The API's description, from what each route says of itself: they are plain routes, for speed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, Literal

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from services.api.bodies import IDEMPOTENCY_HEADER, MAX_BODY_BYTES, MAX_TIMEOUT_MS, OUTERMOST_S, TIMEOUT_HEADER
from services.api.correlation import REQUEST_ID_HEADER, REQUEST_ID_PATTERN
from services.api.problems import CODES

ALWAYS: Final = ("bad_request", "length_required", "body_too_large", "internal")
"""What any operation may be answered with."""

REF: Final = "#/components/schemas/{model}"

ANSWER_HEADERS: Final[dict[str, Any]] = {
    "x-request-id": {
        "description": "The request's own name in logs and traces: the caller's where it sent a good one.",
        "schema": {"type": "string", "pattern": f"^{REQUEST_ID_PATTERN}$"},
    },
    "x-breakwater-replica": {"description": "Which replica answered.", "schema": {"type": "string"}},
}
RETRY_HEADERS: Final[dict[str, Any]] = {
    "retry-after": {"description": "Seconds until a repetition makes sense.", "schema": {"type": "integer"}}
}


class InvalidPlace(BaseModel):
    """One place in the request that breaks the contract."""

    loc: list[str | int]
    msg: str
    type: str


class ReplicaAtReload(BaseModel):
    """One live replica at the end of a reload; `version` and `generation` (0: none) are what it serves.

    After a success it `serves` the new model, or is `behind` and will follow. After a failure it `refused` the
    candidate (with its reason), was `silent`, or had `prepared` and dropped it.
    """

    replica: str
    outcome: Literal["serves", "prepared", "refused", "silent", "behind"]
    version: str | None
    generation: int
    reason: str | None


class ProblemDetails(BaseModel):
    """RFC 9457. `code` is stable and for programs; `errors` comes with `invalid_request` only, `replicas` with
    `candidate_refused` only, `staleness_s` (as StoredFeatures has it) with `features_not_found` of a read only."""

    type: Literal["about:blank"]
    title: str
    status: int
    code: str
    detail: str
    errors: list[InvalidPlace] | None = None
    replicas: list[ReplicaAtReload] | None = None
    staleness_s: float | None = None


@dataclass(frozen=True, slots=True)
class Operation:
    """One route by one method; a GET has no `requests`, but may have a `query`, whose fields are its parameters.

    `codes` are the refusals of its own, of the table of codes.
    """

    path: str
    name: str
    summary: str
    requests: tuple[type[BaseModel], ...]
    answer: type[BaseModel]
    codes: tuple[str, ...]
    idempotent_by_key: bool = False
    method: Literal["get", "post"] = "post"
    security: Literal["bearer", "admin"] = "bearer"
    query: type[BaseModel] | None = None


def document(title: str, version: str, operations: Sequence[Operation]) -> dict[str, Any]:
    """OpenAPI 3.1 of these operations."""
    models: list[tuple[type[BaseModel], Literal["validation", "serialization"]]] = [(ProblemDetails, "serialization")]
    for operation in operations:
        models += [(model, "validation") for model in operation.requests]
        models.append((operation.answer, "serialization"))
    _, definitions = models_json_schema(models, ref_template=REF)
    paths: dict[str, dict[str, Any]] = defaultdict(dict)
    for operation in operations:
        paths[operation.path][operation.method] = _route(operation)
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": version},
        "paths": dict(paths),
        "components": {
            "schemas": definitions["$defs"],
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "admin": {"type": "http", "scheme": "bearer", "description": "The administrator's token."},
            },
        },
    }


def _route(operation: Operation) -> dict[str, Any]:
    bodies = [_schema(model) for model in operation.requests]
    body = {
        "required": True,
        "description": f"At most {MAX_BODY_BYTES} bytes, with a Content-Length. Its types are JSON's own.",
        "content": {"application/json": {"schema": bodies[0] if len(bodies) == 1 else {"oneOf": bodies}}},
    }
    return {
        "summary": operation.summary,
        "operationId": operation.name,
        "security": [{operation.security: []}],
        "parameters": _parameters(operation),
        **({"requestBody": body} if bodies else {}),
        "responses": {
            "200": {
                "description": "Done",
                "headers": ANSWER_HEADERS,
                "content": {"application/json": {"schema": _schema(operation.answer)}},
            },
            **_refusals(operation),
        },
    }


def _parameters(operation: Operation) -> list[dict[str, Any]]:
    patience = {
        "name": TIMEOUT_HEADER,
        "in": "header",
        "description": f"How long the caller waits, in milliseconds; at most {OUTERMOST_S:.0f} s are used.",
        "schema": {"type": "integer", "minimum": 1, "maximum": MAX_TIMEOUT_MS},
    }
    name = {
        "name": REQUEST_ID_HEADER.decode(),
        "in": "header",
        "description": "The caller's name for this request, for logs and traces; another form of it is not used.",
        "schema": {"type": "string"},
    }
    key = {
        "name": IDEMPOTENCY_HEADER,
        "in": "header",
        "description": "The same for a repetition of the same write; without it, it is derived from the content.",
        "schema": {"type": "string", "format": "uuid"},
    }
    asked = operation.query.model_json_schema() if operation.query is not None else {"properties": {}}
    return [
        *(
            {"name": name, "in": "query", "required": name in asked.get("required", ()), "schema": schema}
            for name, schema in asked["properties"].items()
        ),
        *([patience] if "invalid_timeout" in operation.codes else []),
        name,
        *([key] if operation.idempotent_by_key else []),
    ]


def _refusals(operation: Operation) -> dict[str, Any]:
    by_status: dict[int, list[str]] = defaultdict(list)
    for code in (*ALWAYS, *operation.codes):
        by_status[int(CODES[code])].append(code)
    content = {"application/problem+json": {"schema": _schema(ProblemDetails)}}
    return {
        str(status): {
            "description": " or ".join(f"`{code}`" for code in codes),
            "headers": ANSWER_HEADERS | RETRY_HEADERS if status == HTTPStatus.SERVICE_UNAVAILABLE else ANSWER_HEADERS,
            "content": content,
        }
        for status, codes in sorted(by_status.items())
    }


def _schema(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": REF.format(model=model.__name__)}
