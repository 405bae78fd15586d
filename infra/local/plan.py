"""Where each member of a local environment lives: names, ports and directories, derived from the topology alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

from infra.names import APP_ROLE, FEATURES_DATABASE, MAGE_DATABASE, MAGE_ROLE, MAGE_SHARD, REGISTRY_SHARD
from infra.topology import Topology
from services.contracts.shards import HostPort, ShardEndpoints, patroni_namespace
from services.registry import registry

LOOPBACK: Final = "127.0.0.1"

# Offsets from `local.port_base`; each block has room for the topology's upper bounds.
ETCD_CLIENT_OFFSET: Final = 0
ETCD_PEER_OFFSET: Final = 10
REDIS_OFFSET: Final = 20
API_OFFSET: Final = 30
H2O_OFFSET: Final = 60
H2O_STATUS_OFFSET: Final = 80
REGISTRY_OFFSET: Final = 90
MAGE_OFFSET: Final = 92
MAGE_STATUS_OFFSET: Final = 93
POSTGRES_OFFSET: Final = 100
EDGE_OFFSET: Final = 443
API_AGENT_OFFSET: Final = 500
PORTS_PER_SHARD: Final = 20
PORTS_PER_H2O_NODE: Final = 2
"""REST, and the next one for its peers."""


@dataclass(frozen=True, slots=True)
class MemberPlan:
    """One member. `aux_port` is etcd's peer port, Patroni's REST port, the port of an H2O node's agent, of Mage's watch
    or of an API replica's watchdog; others have none.
    """

    name: str
    component: str
    shard: int | None
    port: int
    aux_port: int | None
    directory: Path


def state_root() -> Path:
    """Base of all environments' state: XDG_STATE_HOME, or for root (whose home is closed to others) a system path.

    A relative XDG_STATE_HOME counts as unset, as the XDG specification says.
    """
    configured = os.environ.get("XDG_STATE_HOME", "")
    if Path(configured).is_absolute():
        return Path(configured) / "breakwater"
    if os.geteuid() == 0:
        return Path("/var/lib/breakwater")
    return Path.home() / ".local" / "state" / "breakwater"


class LocalPlan:
    """The whole local environment as names, ports and paths; makes nothing, touches nothing."""

    def __init__(self, topology: Topology, root: Path | None = None) -> None:
        self.topology = topology
        self.environment = topology.environment
        self.state = (root or state_root()) / topology.environment

    # Directories and files of the environment.

    @property
    def members_dir(self) -> Path:
        return self.state / "members"

    @property
    def secrets_dir(self) -> Path:
        return self.state / "secrets"

    @property
    def tls_dir(self) -> Path:
        return self.state / "tls"

    @property
    def ca_file(self) -> Path:
        return self.tls_dir / "ca.pem"

    @property
    def models_dir(self) -> Path:
        return self.state / "models"

    @property
    def undo_dir(self) -> Path:
        return self.state / "undo"

    @property
    def experiment_lock(self) -> Path:
        """Held by the process that carries out an experiment, as long as it lives."""
        return self.state / "experiment.lock"

    @property
    def supervisor_dir(self) -> Path:
        return self.state / "supervisor"

    @property
    def passfile(self) -> Path:
        return self.secrets_dir / "app.pgpass"

    @property
    def mage_passfile(self) -> Path:
        return self.secrets_dir / "mage.pgpass"

    @property
    def admin_passfile(self) -> Path:
        return self.secrets_dir / "admin.pgpass"

    @property
    def token_file(self) -> Path:
        return self.secrets_dir / "api_token"

    @property
    def admin_token_file(self) -> Path:
        return self.secrets_dir / "admin_token"

    # Members.

    @cached_property
    def members(self) -> tuple[MemberPlan, ...]:
        return tuple(self._members())

    def _members(self) -> Iterator[MemberPlan]:
        base = self.topology.local.port_base
        postgres = self.topology.postgres

        def plan(
            name: str, component: str, port: int, *, aux: int | None = None, shard: int | None = None
        ) -> MemberPlan:
            return MemberPlan(name, component, shard, port, aux, self.members_dir / name)

        for i in range(self.topology.etcd.members):
            yield plan(f"etcd-{i}", "etcd", base + ETCD_CLIENT_OFFSET + i, aux=base + ETCD_PEER_OFFSET + i)
        for shard in range(postgres.shards):
            first = base + POSTGRES_OFFSET + shard * PORTS_PER_SHARD
            for i in range(postgres.members_per_shard):
                yield plan(
                    f"shard-{shard}-{i}", f"postgres/shard-{shard}", first + 2 * i, aux=first + 2 * i + 1, shard=shard
                )
        yield plan("redis-0", "redis", base + REDIS_OFFSET)
        for i in range(self.topology.h2o.nodes):
            port = base + H2O_OFFSET + PORTS_PER_H2O_NODE * i
            yield plan(f"h2o-{i}", "h2o", port, aux=base + H2O_STATUS_OFFSET + i)
        yield plan("registry-0", "registry", base + REGISTRY_OFFSET)
        if self.topology.mage.enabled:
            yield plan("mage-0", "mage", base + MAGE_OFFSET, aux=base + MAGE_STATUS_OFFSET)
        for i in range(self.topology.api.replicas):
            yield plan(f"api-{i}", "api", base + API_OFFSET + i, aux=base + API_AGENT_OFFSET + i)
        yield plan("edge-0", "edge", base + EDGE_OFFSET)

    def member(self, name: str) -> MemberPlan:
        """KeyError with the known names when there is no such member."""
        for member in self.members:
            if member.name == name:
                return member
        raise KeyError(f"no member {name!r} in {self.environment}; members: {', '.join(m.name for m in self.members)}")

    def of(self, component: str) -> tuple[MemberPlan, ...]:
        """Members of a component; `postgres` stands for all shards."""
        return tuple(m for m in self.members if m.component == component or m.component.split("/", 1)[0] == component)

    def of_shard(self, shard: int) -> tuple[MemberPlan, ...]:
        return tuple(m for m in self.members if m.shard == shard)

    @property
    def etcd_urls(self) -> tuple[str, ...]:
        return tuple(f"http://{LOOPBACK}:{member.port}" for member in self.of("etcd"))

    @property
    def patroni_namespace(self) -> str:
        return patroni_namespace(self.environment)

    @property
    def edge_url(self) -> str:
        return f"https://{LOOPBACK}:{self.member('edge-0').port}"

    @property
    def artifacts(self) -> str:
        """URL of the model registry's artifact store."""
        return self.topology.registry.artifacts or str(self.models_dir / "artifacts")

    def registry_endpoints(self) -> ShardEndpoints:
        """The model registry's database, as the application's role."""
        return self.shard_endpoints(REGISTRY_SHARD).model_copy(update={"dbname": registry.DATABASE})

    @property
    def mage_url(self) -> str:
        return f"http://{LOOPBACK}:{self.member('mage-0').port}"

    def mage_endpoints(self) -> ShardEndpoints:
        """Mage's own database, as its role."""
        return self.shard_endpoints(MAGE_SHARD).model_copy(
            update={"dbname": MAGE_DATABASE, "user": MAGE_ROLE, "passfile": self.mage_passfile}
        )

    @property
    def runs_dir(self) -> Path:
        """Where each walk-forward run has its directory."""
        return self.members_dir / "mage-0" / "runs"

    @property
    def genmodel_jar(self) -> Path:
        return self.state / "h2o-genmodel.jar"

    def shard_endpoints(self, shard: int) -> ShardEndpoints:
        """How the application reaches the shard, as its own role."""
        return ShardEndpoints(
            shard=shard,
            hosts=tuple(HostPort(name=m.name, host=LOOPBACK, port=m.port) for m in self.of_shard(shard)),
            dbname=FEATURES_DATABASE,
            user=APP_ROLE,
            passfile=self.passfile,
        )

    def admin_endpoints(self, shard: int, dbname: str = "postgres") -> ShardEndpoints:
        """The same members as superuser; for provisioning and for observers that need the server's own views."""
        return self.shard_endpoints(shard).model_copy(
            update={"dbname": dbname, "user": "postgres", "passfile": self.admin_passfile}
        )

    def all_shards(self) -> tuple[ShardEndpoints, ...]:
        return tuple(self.shard_endpoints(shard) for shard in range(self.topology.postgres.shards))
