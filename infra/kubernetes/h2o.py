"""The H2O cluster: each pod runs its node's agent, its candidate for keeper and the JVM; it heals as a whole."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

import pulumi
from pulumi_kubernetes import apps, core, meta, policy

from infra.kubernetes import pods
from infra.kubernetes.component import Component
from infra.kubernetes.credentials import StackSecrets, secret_object
from infra.kubernetes.plan import CONFIG_DIR, H2O, H2O_INTERNAL, H2O_STATUS, MEMBER_DIR, PYTHON, TLS_DIR, KubernetesPlan
from infra.on_kubernetes import Resources

SCRATCH_MB: Final = 4096
"""What H2O spills of its frames to disk; all of it can be loaded again."""


@dataclass(frozen=True, slots=True)
class H2OConfig:
    plan: KubernetesPlan
    nodes: int
    memory_mb: int
    heap_mb: int
    cpu_m: int
    image: str

    @classmethod
    def of(cls, plan: KubernetesPlan) -> H2OConfig:
        h2o = plan.topology.h2o
        return cls(
            plan,
            h2o.nodes,
            h2o.memory_mb,
            h2o.heap_mb,
            plan.settings.sizes.h2o_cpu_m,
            plan.settings.images.reference("h2o"),
        )

    @property
    def sizes(self) -> Resources:
        """Requests equal limits: a model must not depend on who else is on the node."""
        return Resources(cpu_m=self.cpu_m, cpu_limit_m=self.cpu_m, memory_mb=self.memory_mb)

    def files(self) -> dict[str, str]:
        """One file for each node, named after its pod (services/h2o/node.py reads it)."""
        nodes = [
            {"name": name, "host": self.plan.member_host("h2o", name), "port": H2O} for name in self.plan.h2o_members
        ]
        return {
            f"{name}.json": json.dumps(
                {
                    "environment": self.plan.environment,
                    "name": name,
                    "nodes": nodes,
                    "etcd": list(self.plan.etcd_urls),
                    "status_port": H2O_STATUS,
                    "memory_mb": self.memory_mb,
                    "heap_mb": self.heap_mb,
                    "threads": max(1, self.cpu_m // 1000),
                    "directory": str(MEMBER_DIR),
                    "certificates": {
                        "authority": str(TLS_DIR / "ca.crt"),
                        "certificate": str(TLS_DIR / "tls.crt"),
                        "key": str(TLS_DIR / "tls.key"),
                    },
                },
                indent=2,
            )
            + "\n"
            for name in self.plan.h2o_members
        }


class H2OCluster(Component):
    host: pulumi.Output[str]

    def __init__(
        self, name: str, config: H2OConfig, secrets: StackSecrets, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__(name, opts)
        plan, files = config.plan, config.files()
        settings = core.v1.ConfigMap(name, pods.config_map(plan, name, "h2o", files), opts=self.child())
        own = {**secrets.tls("h2o"), **secrets.client_tls()}
        tls = secret_object(plan, f"{name}-tls", "h2o", self.child(), text=own)
        service = core.v1.Service(
            name,
            core.v1.ServiceInitArgs(
                metadata=pods.metadata(plan, name, "h2o"),
                spec=core.v1.ServiceSpecArgs(
                    cluster_ip="None",
                    # nodes must find each other to agree, and only then is any of them ready
                    publish_not_ready_addresses=True,
                    selector=plan.labels("h2o"),
                    ports=[
                        core.v1.ServicePortArgs(name="rest", port=H2O),
                        core.v1.ServicePortArgs(name="internal", port=H2O_INTERNAL),
                    ],
                ),
            ),
            opts=self.child(),
        )
        policy.v1.PodDisruptionBudget(
            name,
            # any loss ends the cloud and the keeper forms the next: a drain takes one node, and waits for no cloud
            pods.budget(plan, name, "h2o", may_leave=1, sick_may_leave=True),
            opts=self.child(),
        )
        self.nodes = apps.v1.StatefulSet(
            name,
            apps.v1.StatefulSetInitArgs(
                metadata=pods.metadata(
                    plan,
                    name,
                    "h2o",
                    # With OnDelete the current revision never becomes the update revision: Pulumi would wait in vain.
                    annotations={"pulumi.com/waitFor": f"jsonpath={{.status.readyReplicas}}={config.nodes}"},
                ),
                spec=apps.v1.StatefulSetSpecArgs(
                    service_name=name,
                    replicas=config.nodes,
                    pod_management_policy="Parallel",
                    # a cloud of two releases refuses itself: all nodes are replaced together, by deleting the pods
                    update_strategy=apps.v1.StatefulSetUpdateStrategyArgs(type="OnDelete"),
                    selector=meta.v1.LabelSelectorArgs(match_labels=plan.labels("h2o")),
                    template=pods.template(plan, "h2o", _pod(config), annotations=pods.digest(files)),
                ),
            ),
            opts=self.child(after=[settings, tls, service]),
        )
        self.host = self.nodes.id.apply(lambda _: plan.service_host("h2o"))
        self.register_outputs({"host": self.host})


def _pod(config: H2OConfig) -> core.v1.PodSpecArgs:
    plan = config.plan
    return pods.pod(
        plan,
        "h2o",
        containers=[
            pods.container(
                "node",
                config.image,
                [PYTHON, "-m", "services.h2o.node", f"{CONFIG_DIR}/$(POD_NAME).json"],
                config.sizes,
                [pods.mount("scratch", MEMBER_DIR, writable=True), pods.CONFIG_MOUNT, pods.TLS_MOUNT, pods.TMP_MOUNT],
                env=plan.etcd_client_variables,
                ports={"rest": H2O, "internal": H2O_INTERNAL, "status": H2O_STATUS},
                startup_probe=pods.tcp_probe(H2O_STATUS, pods.Timing(2, 1, 60)),
                # the keeper's word: every node in consensus, not merely this one answering
                readiness_probe=pods.http_probe("/ready", H2O_STATUS, pods.Timing(5, 3, 2)),
                # the agent, not the JVM: a long collection must not restart a node that is training
                liveness_probe=pods.tcp_probe(H2O_STATUS, pods.Timing(10, 5, 6)),
            )
        ],
        volumes=[
            pods.config_volume("h2o"),
            pods.secret_volume("tls", "h2o-tls"),
            pods.scratch_volume("scratch", limit_mb=SCRATCH_MB),
            pods.scratch_volume(),
        ],
        grace_s=30,
        **pods.placement(plan, "h2o"),
    )
