"""Names, addresses, ports and flows of an environment on Kubernetes, derived from the topology alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from infra.names import APP_ROLE, FEATURES_DATABASE, REGISTRY_SHARD
from infra.on_kubernetes import Kubernetes
from infra.topology import Topology, TopologyError
from services.contracts.shards import HostPort, ShardEndpoints, patroni_namespace
from services.coordination import tls
from services.registry import registry

LABEL_DOMAIN: Final = "breakwater.dev"
CHAOS_LABEL: Final = f"{LABEL_DOMAIN}/chaos"
"""By this label, `enabled`, a namespace opts in to faults."""
PYTHON: Final = "/opt/breakwater/bin/python"
"""Where every image with our code keeps its interpreter (docs/architecture/kubernetes.md, images)."""
POSTGRES_BIN: Final = Path("/usr/lib/postgresql/15/bin")

MEMBER_DIR: Final = Path("/var/lib/breakwater")
"""A member's volume; short, because Postgres' socket below it may have 107 bytes."""
MODELS_DIR: Final = Path("/var/lib/breakwater-models")
"""Where the shared volume of models is mounted."""
CONFIG_DIR: Final = Path("/etc/breakwater")
SECRETS_DIR: Final = Path("/run/secrets/breakwater")
TLS_DIR: Final = Path("/run/tls")
PRIVATE_DIR: Final = Path("/run/breakwater")
"""In memory: files that must have mode 0600, as libpq's passfile; a mounted Secret that a group reads cannot."""

ETCD_CLIENT: Final = 2379
ETCD_PEER: Final = 2380
ETCD_METRICS: Final = 2381
POSTGRES: Final = 5432
PATRONI: Final = 8008
REDIS: Final = 6379
H2O: Final = 54321
H2O_INTERNAL: Final = 54322
H2O_STATUS: Final = 8082
API: Final = 8080
API_AGENT: Final = 8081
EDGE: Final = 8443
EDGE_HEALTH: Final = 8404
MAGE: Final = 6789
MAGE_STATUS: Final = 8084
REGISTRY_STATUS: Final = 8083
DNS: Final = 53

Workload = Literal["etcd", "postgres", "redis", "h2o", "registry", "api", "edge", "mage", "migrate", "load"]
"""What has pods; `migrate` and `load` are Jobs."""
CLIENTS: Final = "clients"
"""The networks of `kubernetes.edge.clients`, outside the cluster."""
RUNNERS: Final = "runners"
"""The networks of `kubernetes.runners`, outside the cluster: those who run experiments."""
SCRAPER: Final = "scraper"
"""The pods of `kubernetes.scraper`, in another namespace."""


@dataclass(frozen=True, slots=True)
class Flow:
    """One connection that the platform makes; everything else is denied."""

    source: Workload | Literal["clients", "runners", "scraper"]
    target: Workload
    ports: tuple[int, ...]


FLOWS: Final = (
    Flow(CLIENTS, "edge", (EDGE,)),
    Flow("edge", "api", (API, API_AGENT)),
    Flow("api", "postgres", (POSTGRES,)),
    Flow("api", "redis", (REDIS,)),
    Flow("api", "etcd", (ETCD_CLIENT,)),
    Flow("postgres", "postgres", (POSTGRES, PATRONI)),
    Flow("postgres", "etcd", (ETCD_CLIENT,)),
    Flow("etcd", "etcd", (ETCD_PEER,)),
    Flow("h2o", "h2o", (H2O, H2O_INTERNAL)),
    Flow("h2o", "etcd", (ETCD_CLIENT,)),
    Flow("registry", "postgres", (POSTGRES,)),
    Flow("registry", "etcd", (ETCD_CLIENT,)),
    Flow("mage", "postgres", (POSTGRES,)),
    Flow("mage", "etcd", (ETCD_CLIENT,)),
    Flow("mage", "h2o", (H2O,)),
    Flow("migrate", "postgres", (POSTGRES,)),
    Flow("migrate", "etcd", (ETCD_CLIENT,)),
    Flow("load", "postgres", (POSTGRES,)),
    Flow("load", "etcd", (ETCD_CLIENT,)),
)
"""Who opens connections to whom. Probes come from the node itself, which no NetworkPolicy keeps out."""

EXPERIMENT_FLOWS: Final = (
    Flow(RUNNERS, "postgres", (POSTGRES, PATRONI)),
    Flow(RUNNERS, "etcd", (ETCD_CLIENT,)),
    Flow("postgres", "api", (API,)),
    Flow("postgres", "h2o", (H2O_STATUS,)),
)
"""What experiments ask directly: writers, readers and probes each member, and the leader keys. Only with chaos on.

What replicas count and whether nodes of H2O are ready is asked from a shard's pod, where experiments may run commands
(infra/kubernetes/through.py).
"""

SCRAPER_FLOW: Final = Flow(SCRAPER, "api", (API,))
"""Who collects the replicas' metrics; only where the topology names him."""


@dataclass(frozen=True, slots=True)
class Reached:
    """A member that experiments reach directly, and the ports of its pod by name."""

    member: str
    workload: Workload
    shard: int | None
    ports: Mapping[str, int]

    @property
    def service(self) -> str:
        return f"reach-{self.member}"


class KubernetesPlan:
    """The whole environment as names and addresses; makes nothing, touches nothing.

    TopologyError when the environment runs elsewhere.
    """

    def __init__(self, topology: Topology) -> None:
        if topology.runtime != "kubernetes" or topology.kubernetes is None:
            raise TopologyError(
                f"{topology.environment} runs on {topology.runtime}; manifests are made of environments with "
                "breakwater:runtime kubernetes"
            )
        self.topology = topology
        self.environment = topology.environment
        self.settings: Kubernetes = topology.kubernetes

    @property
    def namespace(self) -> str:
        return self.settings.namespace or f"breakwater-{self.environment}"

    @property
    def protects_data(self) -> bool:
        """Whether Pulumi must refuse to delete what holds data, or whose deletion takes data with it."""
        return self.environment == "production"

    def labels(self, workload: Workload, *, shard: int | None = None) -> dict[str, str]:
        """What selects the pods of a workload (of one shard); never changes, selectors are immutable."""
        named = {
            "app.kubernetes.io/name": "breakwater",
            "app.kubernetes.io/instance": self.environment,
            "app.kubernetes.io/component": workload,
        }
        if shard is not None:
            named[f"{LABEL_DOMAIN}/shard"] = str(shard)
        return named

    def service_host(self, service: str) -> str:
        """Absolute, so that a resolver asks once and not once for each search domain."""
        return f"{service}.{self.namespace}.svc.{self.settings.cluster_domain}"

    def member_host(self, service: str, member: str) -> str:
        return f"{member}.{self.service_host(service)}"

    # etcd

    @property
    def etcd_members(self) -> tuple[str, ...]:
        return tuple(f"etcd-{i}" for i in range(self.topology.etcd.members))

    @property
    def etcd_hosts(self) -> tuple[str, ...]:
        """host:port of every member, for Patroni."""
        return tuple(f"{self.member_host('etcd', name)}:{ETCD_CLIENT}" for name in self.etcd_members)

    @property
    def etcd_client_variables(self) -> dict[str, str]:
        """How a container with those files mounted proves itself to etcd (services/coordination/tls.py)."""
        files = {tls.AUTHORITY: "ca.crt", tls.CERTIFICATE: "client.crt", tls.KEY: "client.key"}
        return {variable: str(TLS_DIR / file) for variable, file in files.items()}

    @property
    def etcd_urls(self) -> tuple[str, ...]:
        return tuple(f"https://{host}" for host in self.etcd_hosts)

    # Postgres

    @property
    def patroni_namespace(self) -> str:
        return patroni_namespace(self.environment)

    @property
    def shards(self) -> range:
        return range(self.topology.postgres.shards)

    def shard_members(self, shard: int) -> tuple[str, ...]:
        return tuple(f"shard-{shard}-{i}" for i in range(self.topology.postgres.members_per_shard))

    def shard_endpoints(self, shard: int, *, user: str = APP_ROLE, dbname: str = FEATURES_DATABASE) -> ShardEndpoints:
        """How a pod reaches the shard: as the application's role unless said, verified against our own CA."""
        return ShardEndpoints(
            shard=shard,
            hosts=tuple(
                HostPort(name=name, host=self.member_host("postgres", name), port=POSTGRES)
                for name in self.shard_members(shard)
            ),
            dbname=dbname,
            user=user,
            passfile=PRIVATE_DIR / "pgpass",
            root_certificate=TLS_DIR / "ca.crt",
        )

    def all_shards(self, **options: str) -> tuple[ShardEndpoints, ...]:
        return tuple(self.shard_endpoints(shard, **options) for shard in self.shards)

    # Models

    def registry_endpoints(self) -> ShardEndpoints:
        """The model registry's database, as the application's role."""
        return self.shard_endpoints(REGISTRY_SHARD, dbname=registry.DATABASE)

    @property
    def artifacts(self) -> str:
        """URL of the model registry's artifact store."""
        return self.topology.registry.artifacts or f"file://{MODELS_DIR}/artifacts"

    # H2O

    @property
    def h2o_members(self) -> tuple[str, ...]:
        return tuple(f"h2o-{i}" for i in range(self.topology.h2o.nodes))

    # Flows

    @property
    def flows(self) -> tuple[Flow, ...]:
        return (
            *FLOWS,
            *(EXPERIMENT_FLOWS if self.settings.runners else ()),
            *((SCRAPER_FLOW,) if self.settings.scraper else ()),
        )

    def networks(self, source: Literal["clients", "runners"]) -> list[str]:
        """The networks of a source outside the cluster."""
        return self.settings.edge.clients if source == CLIENTS else self.settings.runners

    def flows_to(self, workload: Workload) -> Iterator[Flow]:
        return (flow for flow in self.flows if flow.target == workload)

    def flows_from(self, workload: Workload) -> Iterator[Flow]:
        return (flow for flow in self.flows if flow.source == workload)

    # Access from outside

    def reached_members(self) -> Iterator[Reached]:
        """Every member that has an address of its own outside the cluster; none without `kubernetes.runners`."""
        if not self.settings.runners:
            return
        for name in self.etcd_members:
            yield Reached(name, "etcd", None, {"client": ETCD_CLIENT})
        for shard in self.shards:
            for name in self.shard_members(shard):
                yield Reached(name, "postgres", shard, {"postgres": POSTGRES, "patroni": PATRONI})
