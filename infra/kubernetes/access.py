"""How experiments reach each member from outside: a node port of its own for every server that they ask directly."""

from __future__ import annotations

from typing import Final

import pulumi
from pulumi_kubernetes import core

from infra.kubernetes import pods
from infra.kubernetes.component import Component
from infra.kubernetes.plan import KubernetesPlan, Reached

POD_NAME: Final = "statefulset.kubernetes.io/pod-name"


class Access(Component):
    """One service for each member; only where `kubernetes.runners` names somebody (docs/adr/0017)."""

    def __init__(self, name: str, plan: KubernetesPlan, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(name, opts)
        for reached in plan.reached_members():
            core.v1.Service(
                reached.service,
                core.v1.ServiceInitArgs(
                    metadata=pods.metadata(plan, reached.service, reached.workload, shard=reached.shard),
                    spec=_spec(plan, reached),
                ),
                opts=self.child(),
            )
        self.register_outputs({})


def _spec(plan: KubernetesPlan, reached: Reached) -> core.v1.ServiceSpecArgs:
    return core.v1.ServiceSpecArgs(
        type="NodePort",
        # any node forwards: a member that moves is still found, and one that is away is refused, not met with silence
        external_traffic_policy="Cluster",
        # a server that is down must refuse by itself, as it does inside
        publish_not_ready_addresses=True,
        selector={**plan.labels(reached.workload, shard=reached.shard), POD_NAME: reached.member},
        ports=[core.v1.ServicePortArgs(name=name, port=port) for name, port in reached.ports.items()],
    )
