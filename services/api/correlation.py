"""Which request this is, in every log, trace and answer: the caller's own name for it where it is one, else ours."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

REQUEST_ID_HEADER: Final = b"x-request-id"
TRACEPARENT_HEADER: Final = b"traceparent"

REQUEST_ID_PATTERN: Final = "[A-Za-z0-9._-]{1,64}"
"""Nothing that could end a log line or a header, or fill one."""

_REQUEST_ID: Final = re.compile(REQUEST_ID_PATTERN.encode())

_TRACEPARENT: Final = re.compile(
    rb"(?!ff)(?!00.{54})[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?"
)
"""W3C Trace Context: version 00 ends after the flags, a later one may go on."""

_SAMPLED: Final = 1


@dataclass(frozen=True, slots=True)
class Parent:
    """The caller's span."""

    trace_id: int
    span_id: int
    sampled: bool


class Correlation(NamedTuple):
    """`request_id` is echoed and logged: the caller's `x-request-id`, else its trace's id, else a random one."""

    request_id: str
    parent: Parent | None


def correlate(headers: Mapping[bytes, bytes]) -> Correlation:
    """From a request's headers, by lower-case name. What is malformed counts as absent."""
    parent = None
    request_id = None
    header = headers.get(TRACEPARENT_HEADER)
    if header is not None and (found := _TRACEPARENT.fullmatch(header)) is not None:
        request_id = found[1].decode()
        parent = Parent(int(found[1], 16), int(found[2], 16), bool(int(found[3], 16) & _SAMPLED))
    header = headers.get(REQUEST_ID_HEADER)
    if header is not None and _REQUEST_ID.fullmatch(header) is not None:
        request_id = header.decode()
    if request_id is None:
        request_id = f"{random.getrandbits(128):032x}"
    return Correlation(request_id, parent)
