"""What stands before any workload: the namespace, its network rules, service accounts, and the experiments' rights."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Final, get_args

import pulumi
from pulumi_kubernetes import core, meta, networking, rbac, storage

from infra.kubernetes.component import Component
from infra.kubernetes.plan import CHAOS_LABEL, DNS, KubernetesPlan, Workload
from infra.kubernetes.pods import MANAGED, metadata

WORKLOADS: Final[tuple[Workload, ...]] = get_args(Workload)
POD_SECURITY_VERSION: Final = "v1.30"
"""The oldest Kubernetes that we support: a newer one must not tighten the rules under us unseen."""
NAMESPACE_NAME: Final = "kubernetes.io/metadata.name"
"""A label that Kubernetes itself gives every namespace."""
RUNNER: Final = "experiment-runner"


@dataclass(frozen=True, slots=True)
class Right:
    """One rule of a Role. Without `names` it holds for every object of the namespace."""

    group: str
    resource: str
    verbs: tuple[str, ...]
    names: tuple[str, ...] = ()


def runner_rights(plan: KubernetesPlan) -> tuple[Right, ...]:
    """What experiments need to find members and to do their faults, in this namespace alone.

    Commands reach the members of shards only, deletions those and the nodes of H2O, by name, and only where
    `chaos.components` has them: no pod of the API or of Mage, whose files hold an administrator's token and an owner's
    password. No right reads a Secret. But who runs a command in a shard's pod reads what is mounted there, the
    superuser's password included: the runner is to be trusted with the data of an environment that opted in to faults.

    `namespaces` in a Role is this one alone: whether it opted in. Pods of Deployments have no lasting names to grant: a
    fault on them would need the right to delete any pod.
    """
    looks = (
        Right("", "namespaces", ("get",)),
        Right("", "pods", ("get", "list")),
        Right("", "pods/log", ("get",)),
        Right("", "services", ("get", "list")),
        Right("apps", "statefulsets", ("get", "list")),
        Right("apps", "deployments", ("get", "list")),
    )
    chaos = plan.topology.chaos
    members = tuple(name for shard in plan.shards for name in plan.shard_members(shard))
    members = members if chaos.allows("postgres") else ()
    nodes = plan.h2o_members if chaos.allows("h2o") else ()
    acts = (
        Right("", "pods", ("delete",), (*members, *nodes)),
        # the Python client opens exec by a GET that becomes a websocket, kubectl by a POST
        Right("", "pods/exec", ("get", "create"), members),
    )
    # a rule that names nobody would be one for all
    return (*looks, *(right for right in acts if right.names))


@dataclass(frozen=True, slots=True)
class GroundworkConfig:
    plan: KubernetesPlan
    chaos: bool
    storage_classes: tuple[str, ...]

    @classmethod
    def of(cls, plan: KubernetesPlan) -> GroundworkConfig:
        return cls(plan, plan.topology.chaos.enabled, plan.settings.volumes.storage_classes)


class Groundwork(Component):
    namespace: pulumi.Output[str]

    def __init__(self, name: str, config: GroundworkConfig, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(name, opts)
        plan = config.plan
        # A claim keeps a class that does not exist for ever, and so does the set that made it: look before, in the
        # preview already.
        classes = [
            storage.v1.StorageClass.get(f"class-{name}", name, opts=self.child()) for name in config.storage_classes
        ]
        self._space = core.v1.Namespace(
            plan.namespace,
            core.v1.NamespaceInitArgs(
                metadata=meta.v1.ObjectMetaArgs(name=plan.namespace, labels=_namespace_labels(config))
            ),
            # with it goes everything inside, the claims that no set deletes included
            opts=self.child(after=classes, protect=plan.protects_data),
        )
        self._inside = self.child(after=[self._space])
        for workload in WORKLOADS:
            core.v1.ServiceAccount(
                workload,
                core.v1.ServiceAccountInitArgs(
                    metadata=metadata(plan, workload, workload), automount_service_account_token=False
                ),
                opts=self._inside,
            )
        self._network_rules(plan)
        if config.chaos:
            self._experiments(plan)
        self.namespace = self._space.metadata.name
        self.register_outputs({"namespace": self.namespace})

    def _network_rules(self, plan: KubernetesPlan) -> None:
        networking.v1.NetworkPolicy(
            "default-deny",
            networking.v1.NetworkPolicyInitArgs(
                metadata=meta.v1.ObjectMetaArgs(name="default-deny", namespace=plan.namespace, labels=MANAGED),
                spec=networking.v1.NetworkPolicySpecArgs(
                    pod_selector=meta.v1.LabelSelectorArgs(), policy_types=["Ingress", "Egress"]
                ),
            ),
            opts=self._inside,
        )
        for workload in WORKLOADS:
            networking.v1.NetworkPolicy(
                workload,
                networking.v1.NetworkPolicyInitArgs(
                    metadata=metadata(plan, workload, workload),
                    spec=networking.v1.NetworkPolicySpecArgs(
                        pod_selector=meta.v1.LabelSelectorArgs(match_labels=plan.labels(workload)),
                        policy_types=["Ingress", "Egress"],
                        ingress=_ingress(plan, workload) or None,
                        egress=_egress(plan, workload),
                    ),
                ),
                opts=self._inside,
            )

    def _experiments(self, plan: KubernetesPlan) -> None:
        labels = meta.v1.ObjectMetaArgs(name=RUNNER, namespace=plan.namespace, labels=MANAGED)
        core.v1.ServiceAccount(
            RUNNER,
            core.v1.ServiceAccountInitArgs(metadata=labels, automount_service_account_token=False),
            opts=self._inside,
        )
        rbac.v1.Role(
            RUNNER,
            rbac.v1.RoleInitArgs(
                metadata=labels,
                rules=[
                    rbac.v1.PolicyRuleArgs(
                        api_groups=[right.group],
                        resources=[right.resource],
                        verbs=list(right.verbs),
                        # none named would be all of them
                        resource_names=list(right.names) or None,
                    )
                    for right in runner_rights(plan)
                ],
            ),
            opts=self._inside,
        )
        rbac.v1.RoleBinding(
            RUNNER,
            rbac.v1.RoleBindingInitArgs(
                metadata=labels,
                role_ref=rbac.v1.RoleRefArgs(api_group="rbac.authorization.k8s.io", kind="Role", name=RUNNER),
                subjects=[rbac.v1.SubjectArgs(kind="ServiceAccount", name=RUNNER, namespace=plan.namespace)],
            ),
            opts=self._inside,
        )


def _namespace_labels(config: GroundworkConfig) -> dict[str, str]:
    security = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "audit", "warn")}
    versions = {f"{mode}-version": POD_SECURITY_VERSION for mode in security}
    opted_in = {CHAOS_LABEL: "enabled"} if config.chaos else {}
    return {**MANAGED, "app.kubernetes.io/instance": config.plan.environment, **security, **versions, **opted_in}


def _peer(plan: KubernetesPlan, workload: Workload) -> networking.v1.NetworkPolicyPeerArgs:
    selector = meta.v1.LabelSelectorArgs(match_labels=plan.labels(workload))
    return networking.v1.NetworkPolicyPeerArgs(pod_selector=selector)


def _scraper(plan: KubernetesPlan) -> networking.v1.NetworkPolicyPeerArgs:
    named = plan.settings.scraper
    if named is None:
        raise AssertionError("the scraper's flow is there without a scraper")
    return networking.v1.NetworkPolicyPeerArgs(
        namespace_selector=meta.v1.LabelSelectorArgs(match_labels={NAMESPACE_NAME: named.namespace}),
        pod_selector=meta.v1.LabelSelectorArgs(match_labels=dict(named.labels)),
    )


def _ports(*numbers: int, protocols: tuple[str, ...] = ("TCP",)) -> list[networking.v1.NetworkPolicyPortArgs]:
    return [networking.v1.NetworkPolicyPortArgs(port=number, protocol=way) for number in numbers for way in protocols]


def _ingress(plan: KubernetesPlan, workload: Workload) -> list[networking.v1.NetworkPolicyIngressRuleArgs]:
    rules = []
    for flow in plan.flows_to(workload):
        match flow.source:
            case "clients" | "runners":
                peers = [
                    networking.v1.NetworkPolicyPeerArgs(ip_block=networking.v1.IPBlockArgs(cidr=network))
                    for network in plan.networks(flow.source)
                ]
            case "scraper":
                peers = [_scraper(plan)]
            case _:
                peers = [_peer(plan, flow.source)]
        rules.append(networking.v1.NetworkPolicyIngressRuleArgs(from_=peers, ports=_ports(*flow.ports)))
    return rules


def _egress(plan: KubernetesPlan, workload: Workload) -> list[networking.v1.NetworkPolicyEgressRuleArgs]:
    """The workload's own flows, and names: the cluster's resolver."""
    targets: dict[Workload, list[int]] = defaultdict(list)
    for flow in plan.flows_from(workload):
        targets[flow.target] += flow.ports
    resolver = networking.v1.NetworkPolicyPeerArgs(
        namespace_selector=meta.v1.LabelSelectorArgs(match_labels={NAMESPACE_NAME: "kube-system"}),
        pod_selector=meta.v1.LabelSelectorArgs(match_labels={"k8s-app": "kube-dns"}),
    )
    return [
        networking.v1.NetworkPolicyEgressRuleArgs(to=[resolver], ports=_ports(DNS, protocols=("UDP", "TCP"))),
        *(
            networking.v1.NetworkPolicyEgressRuleArgs(to=[_peer(plan, target)], ports=_ports(*ports))
            for target, ports in targets.items()
        ),
    ]
