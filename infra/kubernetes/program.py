"""The whole environment as one Pulumi program: every component, in the order in which they need each other."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
import pulumi_kubernetes

from infra.kubernetes.access import Access
from infra.kubernetes.api import Api, ApiConfig
from infra.kubernetes.credentials import StackSecrets
from infra.kubernetes.edge import Edge, EdgeConfig
from infra.kubernetes.etcd import Etcd, EtcdConfig
from infra.kubernetes.groundwork import Groundwork, GroundworkConfig
from infra.kubernetes.h2o import H2OCluster, H2OConfig
from infra.kubernetes.jobs import DataJob, JobConfig
from infra.kubernetes.mage import Mage, MageConfig
from infra.kubernetes.plan import KubernetesPlan
from infra.kubernetes.postgres import PostgresBase, PostgresShard, ShardConfig
from infra.kubernetes.redis import Redis, RedisConfig
from infra.kubernetes.registry import Registry, RegistryConfig


@dataclass(frozen=True, slots=True)
class Platform:
    """Every component, for the stack's outputs and for tests."""

    groundwork: Groundwork
    etcd: Etcd
    redis: Redis
    shards: tuple[PostgresShard, ...]
    migrate: DataJob
    load: DataJob
    h2o: H2OCluster
    api: Api
    registry: Registry
    edge: Edge
    mage: Mage | None
    access: Access | None


def deploy(plan: KubernetesPlan) -> Platform:
    """Register everything. The cluster is the one that the topology names, whatever kubeconfig's current context is."""
    secrets = StackSecrets()
    cluster = pulumi_kubernetes.Provider(
        "cluster",
        context=plan.settings.context,
        # Names are stable, so a changed ConfigMap or Secret must be changed in place, not deleted first; a digest in
        # the pods' annotations rolls them.
        enable_config_map_mutable=True,
        enable_secret_mutable=True,
    )

    def options(*after: pulumi.Resource) -> pulumi.ResourceOptions:
        return pulumi.ResourceOptions(providers=[cluster], depends_on=list(after))

    ground = Groundwork("groundwork", GroundworkConfig.of(plan), options())
    etcd = Etcd("etcd", EtcdConfig.of(plan), secrets, options(ground))
    redis = Redis("redis", RedisConfig.of(plan), secrets, options(ground))
    base = PostgresBase("postgres", plan, secrets, options(ground))
    shards = tuple(
        PostgresShard(f"shard-{shard}", ShardConfig.of(plan, shard), base, options(etcd)) for shard in plan.shards
    )
    migrate = DataJob("migrate", JobConfig.migrate(plan), secrets, options(*shards))
    load = DataJob("load", JobConfig.load(plan), secrets, options(migrate))
    h2o = H2OCluster("h2o", H2OConfig.of(plan), secrets, options(etcd))
    api = Api("api", ApiConfig.of(plan), secrets, options(migrate, redis))
    registry = Registry("registry", RegistryConfig.of(plan), secrets, options(api))
    edge = Edge("edge", EdgeConfig.of(plan), secrets, options(api))
    mage = None
    if plan.topology.mage.enabled:
        mage = Mage("mage", MageConfig.of(plan), secrets, options(migrate, h2o, api))
    access = Access("access", plan, options(etcd, *shards)) if plan.settings.runners else None
    return Platform(ground, etcd, redis, shards, migrate, load, h2o, api, registry, edge, mage, access)


def export(plan: KubernetesPlan, platform: Platform) -> None:
    """The stack's outputs: what people and experiments need to find the platform."""
    pulumi.export("namespace", platform.groundwork.namespace)
    pulumi.export("edge", platform.edge.host)
    pulumi.export("hosts", plan.settings.edge.hosts)
    pulumi.export("topology", plan.topology.digest())
