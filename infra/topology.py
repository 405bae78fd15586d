"""The topology: the typed, strict model of what an environment consists of; the only source for both runtimes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from infra.on_kubernetes import Kubernetes
from infra.strict import Model

PROJECT: Final = "breakwater"
CONFIG_PREFIX: Final = f"{PROJECT}:"

MIN_PATRONI_TTL_S: Final = 20
"""Patroni raises anything lower (patroni/validator.py), so a lower figure here would be a lie."""
MIN_SYNC_MEMBERS: Final = 3
"""Strict quorum sync stops writes without a standby: two replicas let one be lost and writes go on."""
MIN_FENCE_MARGIN_S: Final = 5
"""Between the warden's fence and the end of the lease; the kill, its proof and a slow scheduler need to fit in."""
OBSERVER_CONNECTIONS: Final = 24
"""Direct writers, readers and probes of one experiment on one primary (loadtests), which the reserve must hold."""
MIN_WATCHDOG_MS: Final = 100
"""A collection of the whole heap takes half of that; a busy replica must not count as a blocked one."""
MAX_LOCAL_SHARDS: Final = 17
MAX_LOCAL_REPLICAS: Final = 30
MAX_LOCAL_H2O_NODES: Final = 10
"""Each kind of member has its block of ports after `port_base` (infra/local/plan.py); more would meet the next one."""
SERVER_CONNECTIONS: Final = 12
"""Patroni, replication of two standbys, pg_rewind, backups, and the superuser's reserved slots."""

API_BASE_MB: Final = 384
"""Interpreter, pools, metaspace and native memory of the scoring JVM beside its heap, and room: an estimate."""

CRON: Final = r"^[\d*/,-]+( [\d*/,-]+){4}$"
"""Minute, hour, day of the month, month, day of the week, as numbers."""

STRUCK_IN_PODS: Final = frozenset({"postgres", "h2o"})
"""What faults can act on in pods. Of the others experiments outside see the edge's answers at most."""

Component = Literal["etcd", "postgres", "redis", "h2o", "registry", "api", "edge", "mage"]


class TopologyError(Exception):
    """The topology file is missing or says something that cannot work; the message names file and field."""


class Chaos(Model):
    """Where faults may act. Off unless the environment says otherwise."""

    enabled: bool = False
    components: list[Component] = Field(default=[])

    def allows(self, component: str) -> bool:
        """True when a fault may act on `component` (`postgres/shard-0` counts as `postgres`)."""
        return self.enabled and component.split("/", 1)[0] in self.components

    def refusal(self, component: str, environment: str) -> str:
        """What is said to whom it does not allow a fault."""
        return (
            f"faults on {component} are not allowed in {environment}: breakwater:chaos says enabled: "
            f"{str(self.enabled).lower()}, components: {', '.join(self.components) or 'none'}"
        )


class Etcd(Model):
    members: Annotated[int, Field(ge=1, le=7)] = 3

    @model_validator(mode="after")
    def _odd(self) -> Etcd:
        if self.members % 2 == 0:
            raise ValueError(
                f"members is {self.members}: an even etcd cluster tolerates no more failures than one member fewer, "
                "and loses quorum more easily; choose an odd number"
            )
        return self


class Patroni(Model):
    """Seconds. Defaults are Patroni's floor: the lease is what bounds a failover that nobody can prove."""

    ttl: Annotated[int, Field(ge=MIN_PATRONI_TTL_S, le=300)] = 20
    loop_wait: Annotated[int, Field(ge=1)] = 5
    retry_timeout: Annotated[int, Field(ge=3)] = 5
    synchronous: Literal["quorum", "off"] = "quorum"

    @model_validator(mode="after")
    def _fits_the_lease(self) -> Patroni:
        needed = self.loop_wait + 2 * self.retry_timeout
        if needed > self.ttl:
            raise ValueError(
                f"loop_wait + 2*retry_timeout is {needed} s, more than ttl {self.ttl} s: the primary could lose its "
                "lease while it still retries (Patroni would silently lower the figures)"
            )
        return self


class Warden(Model):
    """The guard beside each Postgres member. `fence_margin` is seconds before the lease ends."""

    enabled: bool = True
    fence_margin: Annotated[int, Field(ge=MIN_FENCE_MARGIN_S)] = 8


class Postgres(Model):
    shards: Annotated[int, Field(ge=1, le=64)] = 2
    members_per_shard: Annotated[int, Field(ge=1, le=9)] = 3
    max_connections: Annotated[int, Field(ge=20, le=1000)] = 120
    reserved_connections: Annotated[int, Field(ge=SERVER_CONNECTIONS)] = 40
    patroni: Patroni = Patroni()
    warden: Warden = Warden()

    @model_validator(mode="after")
    def _quorum(self) -> Postgres:
        if self.patroni.synchronous == "quorum" and self.members_per_shard < MIN_SYNC_MEMBERS:
            raise ValueError(
                f"members_per_shard is {self.members_per_shard}: strict quorum sync needs at least {MIN_SYNC_MEMBERS}, "
                "or losing one member stops every write"
            )
        if self.warden.fence_margin >= self.patroni.ttl - self.patroni.loop_wait:
            raise ValueError(
                f"warden.fence_margin {self.warden.fence_margin} s leaves a healthy Patroni less than one loop_wait "
                "to answer: it would be fenced for nothing"
            )
        return self


class Redis(Model):
    max_memory_mb: Annotated[int, Field(ge=16)] = 64


class H2O(Model):
    """Memory limit of one node; the JVM's heap is 70 % of it, native memory (XGBoost, threads, metaspace) the rest."""

    nodes: Annotated[int, Field(ge=1, le=32)] = 1
    memory_mb: Annotated[int, Field(ge=512)] = 2048
    heap_share: float = 0.7

    @model_validator(mode="after")
    def _split(self) -> H2O:
        if self.heap_share != 0.7:  # noqa: PLR2004 - the agreed split, checked by the gate as well
            raise ValueError(
                f"heap_share is {self.heap_share}: the split is 0.7 heap and 0.3 native; more heap gets a node "
                "killed by the kernel, less wastes what was paid for"
            )
        return self

    @property
    def heap_mb(self) -> int:
        return int(self.memory_mb * self.heap_share)

    @property
    def native_mb(self) -> int:
        return self.memory_mb - self.heap_mb


class Registry(Model):
    """Where artifacts are: any fsspec URL (s3://..., gs://...); empty is a directory of the environment's own."""

    artifacts: str = ""


class Mage(Model):
    """The scheduler of training. `schedule`: when to train by itself (cron, five fields, UTC); none: on orders only."""

    enabled: bool = True
    schedule: Annotated[str, Field(pattern=CRON)] | None = None


class Pool(Model):
    """Connections of one API replica to one shard, for each of its two pools (writes, reads)."""

    min: Annotated[int, Field(ge=1)] = 2
    max: Annotated[int, Field(ge=1)] = 8

    @model_validator(mode="after")
    def _ordered(self) -> Pool:
        if self.min > self.max:
            raise ValueError(f"pool min {self.min} is more than max {self.max}")
        return self


class Traces(Model):
    """Where replicas send OpenTelemetry traces: a collector's OTLP over HTTP, and for which share of the requests."""

    endpoint: Annotated[str, Field(pattern=r"^https?://[^/@\s]+(/[^@\s]*)?$")]
    sample: Annotated[float, Field(ge=0, le=1)] = 0.01


class Api(Model):
    """`surge` is how many replicas more a rolling update may run; they hold connections too.

    A replica whose event loop is blocked for `watchdog_ms` leaves the rotation. Without `traces` there are none.
    """

    replicas: Annotated[int, Field(ge=2)] = 2
    max_replicas: Annotated[int, Field(ge=2)] = 4
    surge: Annotated[int, Field(ge=1)] = 1
    pool: Pool = Pool()
    jvm_heap_mb: Annotated[int, Field(ge=64)] = 128
    watchdog_ms: Annotated[int, Field(ge=MIN_WATCHDOG_MS, le=5000)] = 250
    traces: Traces | None = None

    @model_validator(mode="after")
    def _range(self) -> Api:
        if self.replicas > self.max_replicas:
            raise ValueError(f"replicas {self.replicas} is more than max_replicas {self.max_replicas}")
        return self


class Local(Model):
    """Only the local runtime: every port is `port_base` plus a fixed offset, on 127.0.0.1."""

    port_base: Annotated[int, Field(ge=1024, le=64000)] = 24000


class Topology(Model):
    """One environment. Read it with `load`; sections left out take the defaults above."""

    environment: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,30}$")]
    runtime: Literal["local", "kubernetes"]
    chaos: Chaos = Chaos()
    etcd: Etcd = Etcd()
    postgres: Postgres = Postgres()
    redis: Redis = Redis()
    h2o: H2O = H2O()
    registry: Registry = Registry()
    mage: Mage = Mage()
    api: Api = Api()
    local: Local = Local()
    kubernetes: Kubernetes | None = None

    @model_validator(mode="after")
    def _connection_budget(self) -> Topology:
        pools = 2 * self.api.pool.max * (self.api.max_replicas + self.api.surge)
        budget = self.postgres.max_connections - self.postgres.reserved_connections
        if pools > budget:
            raise ValueError(
                f"the API may open {pools} connections to one primary (2 pools x {self.api.pool.max} x "
                f"({self.api.max_replicas} replicas + {self.api.surge} surge)), but postgres.max_connections - "
                f"reserved_connections leaves {budget}: writers would be refused just when replicas scale out"
            )
        observers = OBSERVER_CONNECTIONS if self.chaos.enabled else 0
        if self.postgres.reserved_connections < SERVER_CONNECTIONS + observers:
            raise ValueError(
                f"postgres.reserved_connections is {self.postgres.reserved_connections}: the servers need "
                f"{SERVER_CONNECTIONS} and the observers of an experiment {observers}"
            )
        return self

    @model_validator(mode="after")
    def _room_for_ports(self) -> Topology:
        if self.runtime != "local":
            return self
        if self.postgres.shards > MAX_LOCAL_SHARDS:
            raise ValueError(
                f"postgres.shards is {self.postgres.shards}: the local runtime has ports for {MAX_LOCAL_SHARDS}"
            )
        if self.api.replicas > MAX_LOCAL_REPLICAS:
            raise ValueError(
                f"api.replicas is {self.api.replicas}: the local runtime has ports for {MAX_LOCAL_REPLICAS}"
            )
        if self.h2o.nodes > MAX_LOCAL_H2O_NODES:
            raise ValueError(f"h2o.nodes is {self.h2o.nodes}: the local runtime has ports for {MAX_LOCAL_H2O_NODES}")
        return self

    @model_validator(mode="after")
    def _room_in_pods(self) -> Topology:
        if self.runtime != "kubernetes":
            return self
        if self.kubernetes is None:
            raise ValueError("the kubernetes runtime needs breakwater:kubernetes, with at least context and images")
        if self.api.traces is not None:
            raise ValueError(
                "api.traces is set: pods' network policies let nothing out to a collector yet, leave it out"
            )
        if self.environment != "production" and "production" in self.kubernetes.context:
            raise ValueError(
                f"kubernetes.context is {self.kubernetes.context}: only the environment production may name it, an "
                f"update of {self.environment} would change production's cluster"
            )
        if self.kubernetes.runners and not self.chaos.enabled:
            raise ValueError(
                "kubernetes.runners lets experiments reach the servers, but chaos.enabled is false: no experiment runs "
                "here, so leave it out"
            )
        unreached = [component for component in self.chaos.components if component not in STRUCK_IN_PODS]
        if unreached:
            raise ValueError(
                f"chaos.components names {', '.join(unreached)}: on Kubernetes faults act on postgres and h2o, whose "
                "members experiments reach or can ask; nothing else could be judged there, leave it out"
            )
        needed = self.api.jvm_heap_mb + API_BASE_MB
        if self.kubernetes.sizes.api.memory_mb < needed:
            raise ValueError(
                f"kubernetes.sizes.api.memory_mb is {self.kubernetes.sizes.api.memory_mb}: a replica needs "
                f"{needed} MB ({API_BASE_MB} and its JVM's heap of {self.api.jvm_heap_mb}), or the kernel kills it"
            )
        if self.environment == "production" and self.kubernetes.placement != "required":
            raise ValueError(
                "kubernetes.placement in production must be required: with members of a quorum on one node, losing "
                "that node loses the quorum"
            )
        return self

    @model_validator(mode="after")
    def _no_chaos_in_production(self) -> Topology:
        if self.environment == "production" and self.chaos.enabled:
            raise ValueError("chaos.enabled in production: faults never act there; production takes staging's evidence")
        return self

    def digest(self) -> str:
        """sha256 of the canonical JSON: names this topology in runs and gates."""
        canonical = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()


def stack_file(project: Path, environment: str) -> Path:
    return project / f"Pulumi.{environment}.yaml"


def environments(project: Path) -> list[str]:
    """Names of the environments that the project has a stack file for."""
    return sorted(path.name.split(".")[1] for path in project.glob("Pulumi.*.yaml"))


def load(project: Path, environment: str) -> Topology:
    """The topology in `project/Pulumi.<environment>.yaml`.

    Raises TopologyError naming the file and every wrong field.
    """
    path = stack_file(project, environment)
    try:
        document = yaml.safe_load(path.read_text())
    except FileNotFoundError as error:
        known = environments(project)
        raise TopologyError(
            f"no environment {environment!r}: {path} does not exist; known here: {', '.join(known) or 'none'}"
        ) from error
    except OSError as error:
        raise TopologyError(f"{path} cannot be read: {error.strerror}; see to its permissions") from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise TopologyError(f"{path} is not YAML: {' '.join(str(error).split())}; correct it") from error
    return parse(document, environment, source=str(path))


def parse(document: object, environment: str, *, source: str) -> Topology:
    """Build the topology from a stack file's document; keys of other namespaces (`kubernetes:context`) are not ours."""
    if not isinstance(document, Mapping) or not isinstance(document.get("config"), Mapping):
        raise TopologyError(f"{source}: expected a mapping with `config:`")
    config: Mapping[object, Any] = document["config"]
    strangers = [key for key in config if not isinstance(key, str) or ":" not in key]
    if strangers:
        raise TopologyError(f"{source}: config key {strangers[0]!r} has no namespace; write {CONFIG_PREFIX}KEY")
    named = {str(key): value for key, value in config.items()}
    ours = {key.removeprefix(CONFIG_PREFIX): value for key, value in named.items() if key.startswith(CONFIG_PREFIX)}
    if "environment" in ours:
        raise TopologyError(f"{source}: {CONFIG_PREFIX}environment is given by the file's name; remove it")
    try:
        return Topology.model_validate({"environment": environment, **ours})
    except ValidationError as error:
        problems = "; ".join(
            f"{CONFIG_PREFIX}{'.'.join(map(str, item['loc'])) or '(whole)'}: "
            f"{item['msg'].removeprefix('Value error, ')}"
            for item in error.errors()
        )
        raise TopologyError(f"{source}: {problems}") from error
