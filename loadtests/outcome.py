"""What an answer of the API proves: the two axes of a history row, judged as strictly as an outsider can."""

from __future__ import annotations

import math
import ssl
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import orjson

from loadtests.record import NO_TIMELINE, NOT_STATED, OLDEST_US, Durability, Error

OK: Final = 200
CONFLICT: Final = 409
CLIENT_ERRORS: Final = range(400, 500)
NOT_FOUND: Final = 404
US_PER_S: Final = 1_000_000
NOTHING_THERE_CODE: Final = "features_not_found"
NOT_APPLIED_CODE: Final = "shard_unavailable"
"""The API's promise that a refused write is certainly not applied; every other 5xx leaves that open."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """`error` NONE is a right answer (whether in time is the caller's to say); `member` and `timeline` where known."""

    error: Error
    durability: Durability = Durability.NONE
    member: str | None = None
    timeline: int = NO_TIMELINE
    value: int = 0
    version: str | None = None


def predicted(status: int, body: bytes, replica: str | None = None) -> Outcome:
    """A prediction is right when it is 200 with a probability between 0 and 1.

    `value` is the probability to its last bit, `version` and `timeline` name the model (its generation), `member` the
    replica, where the answer says so.
    """
    if status != OK:
        return Outcome(_http_error(status))
    answer = _members(body)
    probability = answer.get("probability")
    if not isinstance(probability, float | int) or isinstance(probability, bool) or not 0 <= probability <= 1:
        return Outcome(Error.WRONG_ANSWER)
    model = answer.get("model")
    named = model if isinstance(model, dict) else {}
    version, generation = named.get("version"), named.get("generation")
    return Outcome(
        Error.NONE,
        member=replica,
        timeline=generation if isinstance(generation, int) else NO_TIMELINE,
        value=bits(probability),
        version=version if isinstance(version, str) else None,
    )


def bits(probability: float) -> int:
    """A probability as the history's `value` holds it: the 64 bits of its IEEE 754 double."""
    (found,) = struct.unpack("<Q", struct.pack("<d", probability))
    return int(found)


def written(status: int, body: bytes) -> Outcome:
    """200 acknowledges the row; a 4xx or code `shard_unavailable` certainly did not apply it; the rest is unknown."""
    answer = _members(body)
    if status == OK:
        member, timeline = answer.get("server"), answer.get("timeline")
        return Outcome(
            Error.NONE,
            Durability.OK,
            member if isinstance(member, str) else None,
            timeline if isinstance(timeline, int) else NO_TIMELINE,
        )
    if status == CONFLICT:
        return Outcome(Error.NOT_OWNER, Durability.FAIL)
    if status in CLIENT_ERRORS:
        return Outcome(Error.HTTP_4XX, Durability.FAIL)
    if answer.get("code") == NOT_APPLIED_CODE:
        return Outcome(Error.HTTP_5XX, Durability.FAIL)
    error = Error.COMMIT_UNKNOWN if answer.get("code") == "commit_unknown" else _http_error(status)
    return Outcome(error, Durability.UNKNOWN)


def read_back(status: int, body: bytes, replica: str | None = None) -> Outcome:
    """A vector, or that there is none: both are right answers. What each proves depends on the age that it states.

    `value` is what the vector carries (0: there is none), `timeline` the stated age in microseconds, rounded up.
    """
    answer = _members(body)
    if status == NOT_FOUND and answer.get("code") == NOTHING_THERE_CODE:
        return Outcome(Error.NONE, member=replica, timeline=_stated_us(answer.get("staleness_s")))
    if status != OK:
        return Outcome(_http_error(status))
    features = answer.get("features")
    value = features.get("distance") if isinstance(features, dict) else None
    if not isinstance(value, float | int) or isinstance(value, bool) or not (value > 0 and float(value).is_integer()):
        return Outcome(Error.WRONG_ANSWER)
    return Outcome(Error.NONE, member=replica, timeline=_stated_us(answer.get("staleness_s")), value=int(value))


def _stated_us(staleness_s: object) -> int:
    if not isinstance(staleness_s, float | int) or isinstance(staleness_s, bool) or not staleness_s >= 0:
        return NOT_STATED
    return math.ceil(min(staleness_s * US_PER_S, OLDEST_US))


def unanswered(failure: BaseException, *, is_write: bool) -> Outcome:
    """No answer came: only a refused connection proves that a write never left."""
    causes = list(_causes(failure))
    if any(isinstance(cause, ConnectionRefusedError) for cause in causes):
        error = Error.REFUSED
    elif any(isinstance(cause, TimeoutError) or _is_tls_timeout(cause) for cause in causes):
        error = Error.TIMEOUT
    else:
        error = Error.DISCONNECTED
    if not is_write:
        return Outcome(error)
    return Outcome(error, Durability.FAIL if error is Error.REFUSED else Durability.UNKNOWN)


def _http_error(status: int) -> Error:
    return Error.HTTP_4XX if status in CLIENT_ERRORS else Error.HTTP_5XX


def _members(body: bytes) -> dict[str, object]:
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return answer if isinstance(answer, dict) else {}


def _causes(failure: BaseException) -> Iterator[BaseException]:
    """The exception, what it wraps (geventhttpclient's `original`) and what it was raised from."""
    seen: BaseException | None = failure
    while seen is not None:
        yield seen
        original = getattr(seen, "original", None)
        seen = original if isinstance(original, BaseException) else seen.__cause__


def _is_tls_timeout(cause: BaseException) -> bool:
    return isinstance(cause, ssl.SSLError) and "timed out" in str(cause)
