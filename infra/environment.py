"""What every runtime offers to those who experiment: members, endpoints and fault verbs with proof."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from services.contracts.shards import ShardEndpoints
from services.coordination.endpoints import EtcdEndpoints

Scope = Literal["server", "member", "postgres", "patroni"]
"""`server`: the member's main processes (Patroni and Postgres; an H2O node's JVM); `member`: all of it, with its warden
or its agent and keeper; `postgres` and `patroni`: one half of a server of Postgres."""

Struck = Scope | Literal["loop", "keys", "network", "leadership", "model"]
"""What of a member a fault struck; `loop`: a replica's event loop, which runs on; `keys`: what a cache holds;
`network`: its ways to the others; `leadership`: that it led its shard; `model`: what the replicas score with."""

Capability = Literal[
    "kill", "kill-jvm", "hold", "stop", "pause", "isolate", "switchover", "block-loop", "restart", "train"
]
"""`kill-jvm`: an H2O node's JVM alone, its agent lives on; `restart`: every member in turn, in good order; `train`: a
small model that is put into no production."""


class EnvironmentFault(Exception):
    """An environment cannot do what was asked; the message says what, where and what to do."""


class FaultRefused(EnvironmentFault):
    """Chaos is off here, the component is not allowed, or this runtime cannot do the fault. Nothing was touched."""


@dataclass(frozen=True, slots=True)
class ProcessId:
    """A process named beyond doubt: the pid alone is reused, the pid with its start time is not."""

    pid: int
    start_ticks: int
    name: str
    pod: str | None = None
    """Uid of the pod whose processes are numbered so; None on this machine itself."""


@dataclass(frozen=True, slots=True)
class PodId:
    """A pod named beyond doubt: its name is used again, its uid is not."""

    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class Member:
    """One running instance with its helpers. `pid` is its main process on this machine, None when down or remote.

    `agent_port` is where a replica's watchdog answers the edge; others have none.
    """

    name: str
    component: str
    shard: int | None
    host: str
    port: int
    pid: int | None
    dsn: str | None = None
    url: str | None = None
    agent_port: int | None = None


@dataclass(frozen=True, slots=True)
class Edge:
    """`name` is what its certificate bears, where that is not the URL's host."""

    url: str
    ca_file: Path
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Where everything answers; passwords are never in it, only the path of a passfile inside a dsn.

    `addresses` are those of the cluster that runs it; none on one machine.
    """

    edge: Edge
    members: tuple[Member, ...]
    addresses: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        def entry(member: Member) -> dict[str, Any]:
            record: dict[str, Any] = {
                "name": member.name,
                "component": member.component,
                "shard": member.shard,
                "host": member.host,
                "port": member.port,
                "pid": member.pid,
            }
            if member.dsn is not None:
                record["dsn"] = member.dsn
            if member.url is not None:
                record["url"] = member.url
            return record

        return {
            "edge": {"url": self.edge.url, "ca_file": str(self.edge.ca_file)},
            "members": [entry(member) for member in self.members],
        }


@dataclass(frozen=True, slots=True)
class FaultProof:
    """What was done, when, to which processes, and what shows that it took effect.

    `until_ns` is when it ended, for a fault that ends by itself. `pod` is the one that the fault took away as a whole.
    """

    member: str
    scope: Struck
    method: str
    hold: bool
    t_ns: int
    processes: tuple[ProcessId, ...]
    proven: bool
    evidence: str
    until_ns: int | None = None
    pod: PodId | None = None


@dataclass(frozen=True, slots=True)
class ShardState:
    """One shard as Patroni's own REST interface tells it: who is primary, on which timeline, who streams."""

    shard: int
    primary: str | None
    timeline: int | None
    streaming: frozenset[str]
    synchronous: frozenset[str]


@dataclass(frozen=True, slots=True)
class NodeAnswer:
    """What an H2O node said of itself: HTTP's status, and the JSON object (services/coordination/readiness.py)."""

    status: int
    said: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Health:
    """One member's line in `status`. `lag_bytes` is what a replica has yet to receive."""

    member: str
    component: str
    role: str
    healthy: bool
    state: str
    timeline: int | None = None
    lag_bytes: int | None = None


class Environment(Protocol):
    """A running environment. Fault verbs write their undo to disk before they act; `heal` runs what was left."""

    name: str

    def capabilities(self) -> frozenset[Capability]: ...

    def admit_faults(self, component: str) -> None:
        """FaultRefused when faults on a component may not act here, or could not. Touches nothing."""
        ...

    def members(self, component: str | None = None) -> tuple[Member, ...]: ...

    def endpoints(self) -> Endpoints: ...

    def shards(self) -> tuple[ShardEndpoints, ...]: ...

    def etcd(self) -> EtcdEndpoints: ...

    def health(self) -> tuple[Health, ...]:
        """Every member as it says of itself now; EnvironmentFault when the environment is not up at all."""
        ...

    def obstacle(self, member: str) -> str | None:
        """Why an API replica serves no model, by its own word; None when it does."""
        ...

    def metrics(self, member: str) -> str | None:
        """What an API replica has counted, in Prometheus' text form; None when it does not answer."""
        ...

    def h2o_answers(self, path: Literal["/ready", "/status"]) -> Mapping[str, NodeAnswer | None]:
        """What each H2O node answers at this moment, by member; None for one that gave no answer.

        EnvironmentFault where nobody can be asked.
        """
        ...

    def shard_state(self, shard: int) -> ShardState: ...

    def kill(self, member: str, *, scope: Scope, hold: bool) -> FaultProof:
        """SIGKILL; with `hold` the member stays down until `start`."""
        ...

    def process_of(self, member: str) -> ProcessId | None:
        """The member's main process; None while it does not run."""
        ...

    def is_down(self, member: str, identities: tuple[ProcessId, ...], pod: PodId | None = None) -> tuple[bool, str]:
        """Look now: are these very processes and this very pod gone, and does the member refuse connections?

        With what was seen.
        """
        ...

    def stop(self, member: str) -> FaultProof: ...

    def pause(self, member: str, *, scope: Scope = "member") -> FaultProof:
        """SIGSTOP; it stands still until `resume`."""
        ...

    def resume(self, member: str) -> None: ...

    def start(self, member: str) -> None: ...

    def isolate(self, member: str) -> FaultProof:
        """Cut it off from etcd and its peers until `rejoin`; clients still reach it."""
        ...

    def rejoin(self, member: str) -> None: ...

    def switchover(self, member: str) -> FaultProof:
        """Have a shard's primary hand its leadership over in good order; that leaves nothing to undo."""
        ...

    def block_loop(self, member: str, *, seconds: float) -> FaultProof:
        """Block the event loop of an API replica; returns when that is over, so it leaves nothing to undo."""
        ...

    def rotation(self) -> Mapping[str, bool]:
        """Each API replica, and whether the edge sends it requests at this moment."""
        ...

    def heal(self) -> Sequence[str]:
        """Undo every fault whose undo is still on disk; returns what was done, one line each."""
        ...

    def wait_ready(self, *, timeout_s: float) -> None:
        """Return when every member is healthy; EnvironmentFault naming the first that is not, when time is up."""
        ...

    def experiment_lock(self) -> Path:
        """File whose flock the process of an experiment holds; nobody heals before it is free."""
        ...

    def versions(self) -> Mapping[str, str]:
        """What the platform runs: each server's version by its own word, or `not known` and why; or each image."""
        ...

    def logs(self, member: str) -> tuple[Path, ...]: ...

    def token_file(self) -> Path:
        """File that holds the API's bearer token (0600)."""
        ...

    def admin_token_file(self) -> Path:
        """File that holds the API's administrator's token (0600)."""
        ...

    def cache_password_file(self) -> Path:
        """File that holds the cache's password (0600)."""
        ...

    def event_files(self) -> tuple[Path, ...]:
        """Where the platform's own observers (wardens) append their events."""
        ...
