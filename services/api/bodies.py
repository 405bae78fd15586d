"""What requests carry, validated from its bytes: bodies, the caller's patience, an idempotency key."""

from __future__ import annotations

from typing import Final, TypeVar
from uuid import UUID

from pydantic import BaseModel, TypeAdapter, ValidationError
from starlette.requests import Request

from services.api.problems import ContractBroken, InvalidTimeout

TIMEOUT_HEADER: Final = "x-request-timeout-ms"
"""How long the caller waits, in whole milliseconds from when it sent: no clocks are compared."""

OUTERMOST_S: Final = 10.0
"""Nothing here takes longer, whatever a caller allows; the edge gives up then too."""

IDEMPOTENCY_HEADER: Final = "idempotency-key"
MAX_TIMEOUT_DIGITS: Final = 9

Body = TypeVar("Body", bound=BaseModel)


def validated(model: type[Body] | TypeAdapter[Body], body: bytes) -> Body:
    """ContractBroken names every wrong place, and repeats nothing of what came."""
    try:
        return model.validate_json(body) if isinstance(model, TypeAdapter) else model.model_validate_json(body)
    except ValidationError as error:
        raise ContractBroken(
            "the request breaks the contract: correct what `errors` names",
            error.errors(include_url=False, include_input=False, include_context=False),
        ) from None


def patience_s(request: Request, usual_s: float) -> float:
    """Seconds that this request may take: what the caller allows, else `usual_s`; InvalidTimeout when unreadable."""
    text = request.headers.get(TIMEOUT_HEADER)
    if text is None:
        return usual_s
    if not (text.isascii() and text.isdigit() and len(text) <= MAX_TIMEOUT_DIGITS and int(text)):
        raise InvalidTimeout(f"{TIMEOUT_HEADER} must be a whole number of milliseconds, 1 or more")
    return min(int(text) / 1000, OUTERMOST_S)


def idempotency_key(request: Request) -> UUID | None:
    """The caller's key, if it sent one; ContractBroken when it is no UUID."""
    text = request.headers.get(IDEMPOTENCY_HEADER)
    if text is None:
        return None
    try:
        return UUID(text)
    except ValueError:
        raise ContractBroken(
            "the request breaks the contract: correct what `errors` names",
            [{"loc": ("header", IDEMPOTENCY_HEADER), "msg": "Input should be a valid UUID", "type": "uuid_parsing"}],
        ) from None
