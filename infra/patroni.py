"""What Patroni's REST interface says of a member and its shard, read the same way in every runtime."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from infra.environment import Health, ShardState

Own = Mapping[str, Any]
"""The answer of /patroni: a member's live word on its own server; empty when it does not answer."""


def is_primary(own: Own) -> bool:
    return own.get("role") in {"primary", "master"} and own.get("state") == "running"


def shard_state(shard: int, answers: Mapping[str, Own]) -> ShardState:
    """The shard from its members' own words; primary None when none says that it is.

    What one member says of others is not taken: it comes from etcd and outlives a crash by the lease's ttl.
    """
    primary = next((name for name, own in answers.items() if is_primary(own)), None)
    replicas = {name: own for name, own in answers.items() if name != primary}
    senders = answers[primary].get("replication", []) if primary else []
    return ShardState(
        shard=shard,
        primary=primary,
        timeline=answers[primary].get("timeline") if primary else None,
        streaming=frozenset(name for name, own in replicas.items() if own.get("replication_state") == "streaming"),
        # the primary's own view: only whom it counts can acknowledge a commit
        synchronous=frozenset(s["application_name"] for s in senders if s.get("sync_state") in {"quorum", "sync"}),
    )


def health(member: str, component: str, own: Own, cluster: Mapping[str, Any]) -> Health:
    """One member's line; `cluster` is the answer of /cluster, whose lag it knows."""
    role = "primary" if own.get("role") in {"primary", "master"} else "replica"
    state = str(own.get("replication_state") or own.get("state") or "unknown")
    seen: dict[str, Any] = next((m for m in cluster.get("members", []) if m.get("name") == member), {})
    lag = seen.get("lag")
    healthy = own.get("state") == "running" and (role == "primary" or state == "streaming")
    if role == "replica" and (own.get("sync_standby") or own.get("quorum_standby")):
        role = "sync replica"
    return Health(
        member,
        component,
        role,
        healthy,
        state,
        timeline=own.get("timeline") or seen.get("timeline"),
        lag_bytes=lag if isinstance(lag, int) else (0 if role == "primary" else None),
    )
