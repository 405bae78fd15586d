"""What Pulumi sends over its wire, as plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

MARKED_SECRET: Final = "4dabf18193072939515e22adb298388d"  # noqa: S105 - a mark, no secret
"""The key by which Pulumi marks a secret (pulumi/runtime/rpc.py, _special_sig_key)."""


def plain(value: Any) -> Any:
    """Pulumi sends all numbers as floats, what is not set as None, and secrets in a wrapper."""
    match value:
        case str():
            return value
        case Mapping() if MARKED_SECRET in value:
            return plain(value["value"])
        case Mapping():
            return {key: plain(item) for key, item in value.items() if item is not None}
        case Sequence():
            return [plain(item) for item in value]
        case float() if value.is_integer():
            return int(value)
    return value
