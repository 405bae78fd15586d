"""etcd: three members with a disk each, TLS between members and to clients, client certificates demanded."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
from pulumi_kubernetes import apps, core, meta, policy

from infra.kubernetes import pods
from infra.kubernetes.component import Component
from infra.kubernetes.credentials import StackSecrets, secret_object
from infra.kubernetes.plan import ETCD_CLIENT, ETCD_METRICS, ETCD_PEER, MEMBER_DIR, TLS_DIR, KubernetesPlan
from infra.on_kubernetes import Resources, Volume


@dataclass(frozen=True, slots=True)
class EtcdConfig:
    plan: KubernetesPlan
    members: int
    image: str
    sizes: Resources
    volume: Volume

    @classmethod
    def of(cls, plan: KubernetesPlan) -> EtcdConfig:
        settings = plan.settings
        return cls(
            plan,
            plan.topology.etcd.members,
            settings.images.reference("etcd"),
            settings.sizes.etcd,
            settings.volumes.etcd,
        )

    @property
    def may_leave(self) -> int:
        """How many members a drain may take and quorum stays."""
        return (self.members - 1) // 2


class Etcd(Component):
    urls: pulumi.Output[tuple[str, ...]]

    def __init__(
        self, name: str, config: EtcdConfig, secrets: StackSecrets, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__(name, opts)
        plan = config.plan
        tls = secret_object(plan, f"{name}-tls", "etcd", self.child(), text=secrets.tls("etcd"))
        service = core.v1.Service(
            name,
            core.v1.ServiceInitArgs(
                metadata=pods.metadata(plan, name, "etcd"),
                spec=core.v1.ServiceSpecArgs(
                    cluster_ip="None",
                    # members find each other before any of them is ready
                    publish_not_ready_addresses=True,
                    selector=plan.labels("etcd"),
                    ports=[
                        core.v1.ServicePortArgs(name="client", port=ETCD_CLIENT),
                        core.v1.ServicePortArgs(name="peer", port=ETCD_PEER),
                    ],
                ),
            ),
            opts=self.child(),
        )
        policy.v1.PodDisruptionBudget(
            name,
            # without quorum every member is unready, and taking one more is for a human to decide
            pods.budget(plan, name, "etcd", may_leave=config.may_leave, sick_may_leave=False),
            opts=self.child(),
        )
        self.members = apps.v1.StatefulSet(
            name,
            apps.v1.StatefulSetInitArgs(
                metadata=pods.metadata(plan, name, "etcd"),
                spec=apps.v1.StatefulSetSpecArgs(
                    service_name=name,
                    replicas=config.members,
                    # a first member alone never becomes ready: it waits for a quorum
                    pod_management_policy="Parallel",
                    update_strategy=apps.v1.StatefulSetUpdateStrategyArgs(type="RollingUpdate"),
                    persistent_volume_claim_retention_policy=pods.KEEP_CLAIMS,
                    selector=meta.v1.LabelSelectorArgs(match_labels=plan.labels("etcd")),
                    template=pods.template(plan, "etcd", _pod(config)),
                    volume_claim_templates=[
                        pods.claim_template(
                            "member", size_gb=config.volume.size_gb, storage_class=config.volume.storage_class
                        )
                    ],
                ),
            ),
            opts=self.child(after=[service, tls], protect=plan.protects_data),
        )
        self.urls = self.members.id.apply(lambda _: plan.etcd_urls)
        self.register_outputs({"urls": self.urls})


def _pod(config: EtcdConfig) -> core.v1.PodSpecArgs:
    plan = config.plan
    return pods.pod(
        plan,
        "etcd",
        containers=[
            pods.container(
                "etcd",
                config.image,
                ["/usr/bin/etcd"],
                config.sizes,
                [pods.mount("member", MEMBER_DIR, writable=True), pods.TLS_MOUNT],
                env=_settings(plan),
                ports={"client": ETCD_CLIENT, "peer": ETCD_PEER, "metrics": ETCD_METRICS},
                # etcd 3.4 has one health answer and it needs quorum: killing who lost it would not bring it back
                startup_probe=pods.tcp_probe(ETCD_METRICS, pods.Timing(2, 1, 60)),
                readiness_probe=pods.http_probe("/health", ETCD_METRICS, pods.Timing(5, 3, 2)),
                liveness_probe=pods.tcp_probe(ETCD_METRICS, pods.Timing(10, 5, 3)),
            )
        ],
        volumes=[pods.secret_volume("tls", "etcd-tls")],
        grace_s=30,
        **pods.placement(plan, "etcd"),
    )


def _settings(plan: KubernetesPlan) -> dict[str, str]:
    own = plan.member_host("etcd", "$(POD_NAME)")
    peers = ",".join(f"{name}=https://{plan.member_host('etcd', name)}:{ETCD_PEER}" for name in plan.etcd_members)
    files = {"CERT_FILE": "tls.crt", "KEY_FILE": "tls.key", "TRUSTED_CA_FILE": "ca.crt"}
    tls = {
        f"ETCD_{prefix}{variable}": str(TLS_DIR / file) for prefix in ("", "PEER_") for variable, file in files.items()
    }
    return {
        "ETCD_NAME": "$(POD_NAME)",
        "ETCD_DATA_DIR": str(MEMBER_DIR / "data"),
        "ETCD_LISTEN_CLIENT_URLS": f"https://0.0.0.0:{ETCD_CLIENT}",
        "ETCD_ADVERTISE_CLIENT_URLS": f"https://{own}:{ETCD_CLIENT}",
        "ETCD_LISTEN_PEER_URLS": f"https://0.0.0.0:{ETCD_PEER}",
        "ETCD_INITIAL_ADVERTISE_PEER_URLS": f"https://{own}:{ETCD_PEER}",
        "ETCD_LISTEN_METRICS_URLS": f"http://0.0.0.0:{ETCD_METRICS}",
        "ETCD_INITIAL_CLUSTER": peers,
        "ETCD_INITIAL_CLUSTER_TOKEN": f"breakwater-{plan.environment}",
        "ETCD_INITIAL_CLUSTER_STATE": "new",
        "ETCD_CLIENT_CERT_AUTH": "true",
        "ETCD_PEER_CLIENT_CERT_AUTH": "true",
        **tls,
        "ETCD_HEARTBEAT_INTERVAL": "100",
        "ETCD_ELECTION_TIMEOUT": "1000",
        "ETCD_AUTO_COMPACTION_MODE": "periodic",
        "ETCD_AUTO_COMPACTION_RETENTION": "1h",
        "ETCD_ENABLE_GRPC_GATEWAY": "true",
        "ETCD_LOGGER": "zap",
        "ETCD_LOG_LEVEL": "warn",
    }
