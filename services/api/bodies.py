"""What requests carry, validated from its bytes: bodies, the caller's patience, an idempotency key."""

from __future__ import annotations

from typing import Final, TypeVar
from uuid import UUID

from pydantic import BaseModel, TypeAdapter, ValidationError
from starlette.requests import ClientDisconnect, Request

from services.api.headers import header
from services.api.observation import elapsed_s
from services.api.problems import ContractBroken, InvalidTimeout, RequestTimedOut
from services.api.within import Within

TIMEOUT_HEADER: Final = "x-request-timeout-ms"
"""How long the caller waits, in whole milliseconds from when it sent: no clocks are compared."""

OUTERMOST_S: Final = 10.0
"""Nothing here takes longer, whatever a caller allows; the edge gives up then too."""

MAX_BODY_BYTES: Final = 64 * 1024
"""A request is a few hundred bytes; a replica never buffers more than this for anybody."""

BODY_S: Final = 5.0
"""From a request's head to the end of its body; the edge is as patient."""

IDEMPOTENCY_HEADER: Final = "idempotency-key"
MAX_TIMEOUT_DIGITS: Final = 9
MAX_TIMEOUT_MS: Final = 10**MAX_TIMEOUT_DIGITS - 1

Body = TypeVar("Body", bound=BaseModel)


async def whole_body(request: Request) -> bytes:
    """RequestTimedOut when it has not come by `BODY_S`; ClientDisconnect when its sender went."""
    body = bytearray()
    try:
        with Within(BODY_S):
            while True:
                message = await request.receive()
                if message["type"] == "http.disconnect":
                    raise ClientDisconnect
                body += message.get("body", b"")
                if not message.get("more_body", False):
                    return bytes(body)
    except TimeoutError:
        raise RequestTimedOut(f"the request's body did not come within {BODY_S:.0f} s") from None


def validated(model: type[Body] | TypeAdapter[Body], body: bytes) -> Body:
    """ContractBroken names every wrong place, and repeats nothing of what came.

    Types are those of JSON Schema: "7" is no number, and 7.0 is an integer.
    """
    validate = model.validate_json if isinstance(model, TypeAdapter) else model.model_validate_json
    try:
        try:
            return validate(body, strict=True)
        except ValidationError as error:
            if not _integers_are_spelled_as_floats(error):
                raise
            return validate(body)
    except ValidationError as error:
        raise ContractBroken(
            "the request breaks the contract: correct what `errors` names",
            error.errors(include_url=False, include_input=False, include_context=False),
        ) from None


def _integers_are_spelled_as_floats(error: ValidationError) -> bool:
    """Is that all that is wrong? Rare, so that only who does it pays for it."""
    return all(
        place["type"] == "int_type" and isinstance(place["input"], float) and place["input"].is_integer()
        for place in error.errors(include_url=False, include_context=False)
    )


def patience_s(request: Request, usual_s: float) -> float:
    """Seconds that this request may still take: what is left, since it arrived, of what its caller allows and of the
    outermost bound; `usual_s` from now on where the caller says nothing. InvalidTimeout when unreadable.
    """
    text = header(request.scope, TIMEOUT_HEADER.encode())
    elapsed = elapsed_s(request.scope)
    if text is None:
        return max(0.0, min(usual_s, OUTERMOST_S - elapsed))
    if not (text.isdigit() and len(text) <= MAX_TIMEOUT_DIGITS and int(text)):
        raise InvalidTimeout(f"{TIMEOUT_HEADER} must be a whole number of milliseconds, 1 or more")
    return max(0.0, min(int(text) / 1000, OUTERMOST_S) - elapsed)


def idempotency_key(request: Request) -> UUID | None:
    """The caller's key, if it sent one; ContractBroken when it is no UUID."""
    text = header(request.scope, IDEMPOTENCY_HEADER.encode())
    if text is None:
        return None
    try:
        return UUID(text.decode("latin-1"))
    except ValueError:
        raise ContractBroken(
            "the request breaks the contract: correct what `errors` names",
            [{"loc": ("header", IDEMPOTENCY_HEADER), "msg": "Input should be a valid UUID", "type": "uuid_parsing"}],
        ) from None
