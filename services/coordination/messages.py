"""What is said to etcd and heard from it: values, errors and their form in the v3 JSON gateway."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal


class EtcdError(Exception):
    """etcd refused the request: it was understood and certainly not applied."""


class EtcdUnavailable(EtcdError):
    """No server gave an answer in time."""


class EtcdOutcomeUnknown(EtcdUnavailable):
    """A change was sent and not answered: it may be applied already, later, or never. Read before trying again."""


class HistoryCompacted(EtcdError):
    """The changes that a watch asked for are forgotten by now: read the keys again and watch from there."""


class LeaseGone(EtcdError):
    """The lease ran out or was revoked, and its keys with it."""


@dataclass(frozen=True, slots=True)
class KeyValue:
    """One key as etcd stores it; `lease` is 0 when the key has none."""

    key: str
    value: str
    create_revision: int
    mod_revision: int
    version: int
    lease: int


@dataclass(frozen=True, slots=True)
class Compare:
    """One condition of a transaction. A key that does not exist has revisions, version and lease 0 and no value."""

    key: str
    target: Literal["value", "mod_revision", "create_revision", "version", "lease"]
    operand: str | int
    result: Literal["equal", "not_equal", "greater", "less"] = "equal"


@dataclass(frozen=True, slots=True)
class Put:
    """Write a key; with a lease it lives as long as that lease."""

    key: str
    value: str
    lease: int = 0


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete a key if it is there."""

    key: str


@dataclass(frozen=True, slots=True)
class Get:
    """Read a key."""

    key: str


Op = Put | Delete | Get


@dataclass(frozen=True, slots=True)
class OpResult:
    """What one operation of a transaction gave: keys read (Get) or the number of keys deleted (Delete)."""

    kvs: tuple[KeyValue, ...] = ()
    deleted: int = 0


@dataclass(frozen=True, slots=True)
class TxnResult:
    """`results` belong to the branch that ran, in its order."""

    succeeded: bool
    revision: int
    results: tuple[OpResult, ...]


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """One change. Of a deleted key, `kv` has only the key and its mod_revision."""

    kind: Literal["put", "delete"]
    kv: KeyValue
    revision: int


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """What one server says of itself: its id, its raft term, and the id of that term's leader (0: none yet)."""

    member: int
    term: int
    leader: int


TARGETS: Mapping[str, tuple[str, str]] = {
    "value": ("VALUE", "value"),
    "mod_revision": ("MOD", "mod_revision"),
    "create_revision": ("CREATE", "create_revision"),
    "version": ("VERSION", "version"),
    "lease": ("LEASE", "lease"),
}


def encode(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def decode(text: str) -> str:
    return base64.b64decode(text).decode()


def prefix_end(prefix: str) -> str:
    """The first key after all keys with this prefix, encoded: the prefix with its last byte raised (etcd's rule)."""
    raw = bytearray(prefix.encode())
    if not raw:
        return base64.b64encode(b"\0").decode()
    raw[-1] += 1  # UTF-8 never contains 0xff, so no carry
    return base64.b64encode(bytes(raw)).decode()


def put_body(put: Put) -> dict[str, Any]:
    return {"key": encode(put.key), "value": encode(put.value), "lease": str(put.lease)}


def op_body(op: Op) -> dict[str, Any]:
    match op:
        case Put():
            return {"request_put": put_body(op)}
        case Delete():
            return {"request_delete_range": {"key": encode(op.key)}}
        case Get():
            return {"request_range": {"key": encode(op.key)}}


def compare_body(compare: Compare) -> dict[str, Any]:
    target, field = TARGETS[compare.target]
    operand = encode(str(compare.operand)) if compare.target == "value" else str(compare.operand)
    return {"key": encode(compare.key), "target": target, "result": compare.result.upper(), field: operand}


def key_value(node: Mapping[str, Any]) -> KeyValue:
    """The gateway leaves out every field that is zero or empty."""
    return KeyValue(
        key=decode(node["key"]),
        value=decode(node.get("value", "")),
        create_revision=int(node.get("create_revision", 0)),
        mod_revision=int(node.get("mod_revision", 0)),
        version=int(node.get("version", 0)),
        lease=int(node.get("lease", 0)),
    )


def key_values(answer: Mapping[str, Any]) -> tuple[KeyValue, ...]:
    return tuple(key_value(node) for node in answer.get("kvs", ()))


def op_result(response: Mapping[str, Any]) -> OpResult:
    if "response_range" in response:
        return OpResult(kvs=key_values(response["response_range"]))
    if "response_delete_range" in response:
        return OpResult(deleted=int(response["response_delete_range"].get("deleted", 0)))
    return OpResult()


def revision_of(answer: Mapping[str, Any]) -> int:
    return int(answer["header"]["revision"])


def server_status(answer: Mapping[str, Any]) -> ServerStatus:
    header = answer["header"]
    return ServerStatus(int(header["member_id"]), int(header.get("raft_term", 0)), int(answer.get("leader", 0)))


def watch_events(message: Mapping[str, Any]) -> list[WatchEvent]:
    """The changes in one message of a watch."""
    events: list[WatchEvent] = []
    for event in message.get("events", ()):
        kv = key_value(event["kv"])
        events.append(WatchEvent("delete" if event.get("type") == "DELETE" else "put", kv, kv.mod_revision))
    return events
