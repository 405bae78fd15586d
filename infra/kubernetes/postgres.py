"""One Postgres shard: Patroni and its warden in each pod, seeing each other's processes; quorum synchronous."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pulumi
from pulumi_kubernetes import apps, core, meta, policy

from infra.kubernetes import pods
from infra.kubernetes.component import Component
from infra.kubernetes.credentials import StackSecrets, secret_object
from infra.kubernetes.plan import (
    CONFIG_DIR,
    MEMBER_DIR,
    PATRONI,
    POSTGRES,
    POSTGRES_BIN,
    PYTHON,
    SECRETS_DIR,
    TLS_DIR,
    KubernetesPlan,
)
from infra.on_kubernetes import Resources, Volume
from infra.topology import Postgres
from services.contracts.shards import ShardEndpoints
from services.postgres.configure import MemberSettings

GRACE_S: Final = 120
"""Stepping down (up to 30 s), then Postgres' fast shutdown with its checkpoint."""
SHARED_MEMORY_MB: Final = 128
"""For parallel queries: the container runtime's 64 MB is too little. It counts as the pod's memory."""
SERVICE: Final = "postgres"
"""One headless service governs all shards, so that one certificate's wildcard covers a shard added later."""


@dataclass(frozen=True, slots=True)
class ShardConfig:
    plan: KubernetesPlan
    shard: int
    postgres: Postgres
    image: str
    sizes: Resources
    warden_sizes: Resources
    volume: Volume

    @classmethod
    def of(cls, plan: KubernetesPlan, shard: int) -> ShardConfig:
        settings = plan.settings
        return cls(
            plan=plan,
            shard=shard,
            postgres=plan.topology.postgres,
            image=settings.images.reference("postgres"),
            sizes=settings.sizes.postgres,
            warden_sizes=settings.sizes.warden,
            volume=settings.volumes.postgres,
        )

    @property
    def may_leave(self) -> int:
        """Members that a drain may take: a majority stays, or all but one of two.

        A write is acknowledged by the primary and any one standby, so two members that stay would go on with writes.
        But one loss more would stop them, and for one loop of Patroni's nobody could be promoted: a candidate must see
        all who may hold the last write, who left included (patroni/quorum.py). A majority of four stands that loss.
        """
        return max(1, (self.postgres.members_per_shard - 1) // 2)

    def member_settings(self) -> str:
        """What each pod's init container makes patroni.yaml and warden.json of; the member's name is the pod's."""
        patroni = self.postgres.patroni
        settings = MemberSettings(
            scope=f"shard-{self.shard}",
            namespace=self.plan.patroni_namespace,
            domain=self.plan.service_host(SERVICE),
            port=POSTGRES,
            rest_port=PATRONI,
            etcd=self.plan.etcd_hosts,
            directory=MEMBER_DIR,
            bin_dir=POSTGRES_BIN,
            secrets_dir=SECRETS_DIR,
            tls_dir=TLS_DIR,
            ttl_s=patroni.ttl,
            loop_wait_s=patroni.loop_wait,
            retry_timeout_s=patroni.retry_timeout,
            synchronous=patroni.synchronous == "quorum",
            max_connections=self.postgres.max_connections,
            fence_margin_s=self.postgres.warden.fence_margin if self.postgres.warden.enabled else None,
        )
        return json.dumps(settings.model_dump(mode="json"), indent=2, sort_keys=True) + "\n"


class PostgresBase(Component):
    """What the shards share: the service that names every member, the servers' certificate and passwords."""

    def __init__(
        self, name: str, plan: KubernetesPlan, secrets: StackSecrets, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__(name, opts)
        self.service = core.v1.Service(
            SERVICE,
            core.v1.ServiceInitArgs(
                metadata=pods.metadata(plan, SERVICE, "postgres"),
                spec=core.v1.ServiceSpecArgs(
                    cluster_ip="None",
                    # libpq finds the primary by asking; a member that is not ready must keep its name to become so
                    publish_not_ready_addresses=True,
                    selector=plan.labels("postgres"),
                    ports=[
                        core.v1.ServicePortArgs(name="postgres", port=POSTGRES),
                        core.v1.ServicePortArgs(name="patroni", port=PATRONI),
                    ],
                ),
            ),
            opts=self.child(),
        )
        own = {**secrets.tls("postgres"), **secrets.client_tls()}
        self.tls = secret_object(plan, "postgres-tls", "postgres", self.child(), text=own)
        passwords = {
            name: secrets[name]
            for name in ("postgres_superuser", "postgres_replication", "postgres_rewind", "patroni_rest")
        }
        self.passwords = secret_object(plan, "postgres-passwords", "postgres", self.child(), text=passwords)
        self.register_outputs({})


class PostgresShard(Component):
    endpoints: pulumi.Output[ShardEndpoints]

    def __init__(
        self, name: str, config: ShardConfig, base: PostgresBase, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__(name, opts)
        plan, shard = config.plan, config.shard
        files = {"member.json": config.member_settings()}
        settings = core.v1.ConfigMap(
            name, pods.config_map(plan, name, "postgres", files, shard=shard), opts=self.child()
        )
        policy.v1.PodDisruptionBudget(
            name,
            # an unready member may be the one that holds the newest acknowledged writes
            pods.budget(plan, name, "postgres", may_leave=config.may_leave, sick_may_leave=False, shard=shard),
            opts=self.child(),
        )
        self.members = apps.v1.StatefulSet(
            name,
            apps.v1.StatefulSetInitArgs(
                metadata=pods.metadata(plan, name, "postgres", shard=shard),
                spec=apps.v1.StatefulSetSpecArgs(
                    service_name=SERVICE,
                    replicas=config.postgres.members_per_shard,
                    # strict synchronous: the first member alone takes no write, so none may wait for another
                    pod_management_policy="Parallel",
                    update_strategy=apps.v1.StatefulSetUpdateStrategyArgs(type="RollingUpdate"),
                    persistent_volume_claim_retention_policy=pods.KEEP_CLAIMS,
                    selector=meta.v1.LabelSelectorArgs(match_labels=plan.labels("postgres", shard=shard)),
                    template=pods.template(
                        plan, "postgres", _pod(name, config), shard=shard, annotations=pods.digest(files)
                    ),
                    volume_claim_templates=[
                        pods.claim_template(
                            "member", size_gb=config.volume.size_gb, storage_class=config.volume.storage_class
                        )
                    ],
                ),
            ),
            opts=self.child(after=[base.service, base.tls, base.passwords, settings], protect=plan.protects_data),
        )
        self.endpoints = self.members.id.apply(lambda _: plan.shard_endpoints(shard))
        self.register_outputs({"endpoints": self.endpoints.apply(lambda found: found.model_dump(mode="json"))})


def _pod(name: str, config: ShardConfig) -> core.v1.PodSpecArgs:
    plan = config.plan
    member = pods.mount("member", MEMBER_DIR, writable=True)
    shared_memory = pods.mount("shared-memory", Path("/dev/shm"), writable=True)  # noqa: S108 - the pod's own
    configure = pods.container(
        "configure",
        config.image,
        [PYTHON, "-m", "services.postgres.configure", str(CONFIG_DIR / "member.json"), "$(POD_NAME)"],
        config.warden_sizes,
        [member, pods.CONFIG_MOUNT, pods.SECRETS_MOUNT, pods.TLS_MOUNT],
    )
    server = pods.container(
        "server",
        config.image,
        [PYTHON, "-m", "services.postgres.launcher", str(MEMBER_DIR)],
        config.sizes,
        [member, pods.TLS_MOUNT, pods.TMP_MOUNT, shared_memory],
        ports={"postgres": POSTGRES, "patroni": PATRONI},
        # a clone of a large primary takes as long as it takes: /liveness answers meanwhile
        startup_probe=pods.http_probe("/liveness", PATRONI, pods.Timing(2, 2, 60), scheme="HTTPS"),
        readiness_probe=pods.http_probe("/readiness", PATRONI, pods.Timing(5, 5, 3), scheme="HTTPS"),
        # Patroni's own loop, no SQL: a busy Postgres does not fail it
        liveness_probe=pods.http_probe("/liveness", PATRONI, pods.Timing(10, 5, 3), scheme="HTTPS"),
        lifecycle=core.v1.LifecycleArgs(
            pre_stop=core.v1.LifecycleHandlerArgs(
                exec_=core.v1.ExecActionArgs(command=[PYTHON, "-m", "services.postgres.step_down", str(MEMBER_DIR)])
            )
        ),
    )
    warden = pods.container(
        "warden",
        config.image,
        [PYTHON, "-m", "services.postgres.warden", str(MEMBER_DIR / "warden.json")],
        config.warden_sizes,
        [member, pods.TLS_MOUNT],
        env=plan.etcd_client_variables,
        # A sidecar proper: it starts before the server and ends after it, so no death of the server goes unseen.
        restart_policy="Always",
    )
    return pods.pod(
        plan,
        "postgres",
        init=[configure, warden] if config.postgres.warden.enabled else [configure],
        containers=[server],
        # the warden sees, proves dead and kills the processes of the server
        share_process_namespace=True,
        volumes=[
            pods.config_volume(name),
            pods.secret_volume("tls", "postgres-tls"),
            pods.secret_volume("secrets", "postgres-passwords"),
            pods.scratch_volume(),
            pods.scratch_volume("shared-memory", memory=True, limit_mb=SHARED_MEMORY_MB),
        ],
        grace_s=GRACE_S,
        shard=config.shard,
        **pods.placement(plan, "postgres", shard=config.shard),
    )
