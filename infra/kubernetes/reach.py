"""Where a runner outside the cluster reaches what: each member by a node port, names proven by their certificates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from infra.environment import Edge, EnvironmentFault
from infra.kubernetes.plan import ETCD_CLIENT, PATRONI, POSTGRES, KubernetesPlan, Reached
from infra.kubernetes.pod import Pod
from infra.kubernetes.runner import RunnerFiles
from infra.names import APP_ROLE, FEATURES_DATABASE
from services.contracts.shards import HostPort, ShardEndpoints
from services.coordination.endpoints import EtcdEndpoints

HTTPS: Final = 443
REACHED_BY: Final = {"postgres": POSTGRES, "etcd": ETCD_CLIENT}


@dataclass(frozen=True, slots=True)
class Reach:
    """The addresses of one moment. A member keeps its port for as long as its service exists, whatever its pod does."""

    plan: KubernetesPlan
    files: RunnerFiles
    hosts: Mapping[tuple[str, int], HostPort]
    """By member and port of its pod."""
    edge: Edge
    addresses: tuple[str, ...]
    """Of nodes, and of the edge."""

    @classmethod
    def find(
        cls, plan: KubernetesPlan, files: RunnerFiles, services: Sequence[Mapping[str, Any]], pods: Sequence[Pod]
    ) -> Reach:
        """EnvironmentFault naming what is missing: the access of experiments, a service, or any pod at all."""
        if not plan.settings.runners:
            raise EnvironmentFault(
                f"{plan.environment} lets nobody outside reach its servers: name the networks of those who run "
                "experiments in breakwater:kubernetes.runners and apply it"
            )
        nodes = tuple(sorted({pod.node for pod in pods if pod.node}))
        if not nodes:
            raise EnvironmentFault(f"{plan.namespace} has no pod on any node: is {plan.environment} applied?")
        known = {service["metadata"]["name"]: service for service in services}
        homes = {pod.name: pod.node for pod in pods if pod.node}
        hosts = {
            (reached.member, port): HostPort(
                name=reached.member,
                host=plan.member_host(reached.workload, reached.member),
                port=node_port(known, reached, port),
                # through its own node: losing another one must not look like losing this member
                address=homes.get(reached.member, nodes[0]),
            )
            for reached in plan.reached_members()
            for port in reached.ports.values()
        }
        edge = _edge(plan, files, known, nodes[0])
        return cls(plan, files, hosts, edge, tuple(sorted({*nodes, urlsplit(edge.url).hostname or ""})))

    def patroni(self, member: str) -> HostPort:
        return self.hosts[member, PATRONI]

    def main(self, member: str) -> HostPort | None:
        """Where the member serves; None for one that is not reached from outside."""
        found = (self.hosts.get((member, port)) for port in REACHED_BY.values())
        return next((host for host in found if host is not None), None)

    def shard(self, shard: int) -> ShardEndpoints:
        return ShardEndpoints(
            shard=shard,
            hosts=tuple(self.hosts[member, POSTGRES] for member in self.plan.shard_members(shard)),
            dbname=FEATURES_DATABASE,
            user=APP_ROLE,
            passfile=self.files.passfile,
            root_certificate=self.files.ca_file,
        )

    def etcd(self) -> EtcdEndpoints:
        hosts = tuple(self.hosts[member, ETCD_CLIENT] for member in self.plan.etcd_members)
        return EtcdEndpoints(hosts=hosts, proof=self.files.etcd_proof())


def node_port(services: Mapping[str, Mapping[str, Any]], reached: Reached, port: int) -> int:
    service = services.get(reached.service)
    if service is None:
        raise EnvironmentFault(
            f"the service {reached.service} is missing, so {reached.member} cannot be reached: apply the program again"
        )
    for entry in service["spec"]["ports"]:
        if entry["port"] == port and entry.get("nodePort"):
            return int(entry["nodePort"])
    raise EnvironmentFault(f"the service {reached.service} has no node port for {port}: apply the program again")


def _edge(plan: KubernetesPlan, files: RunnerFiles, services: Mapping[str, Mapping[str, Any]], node: str) -> Edge:
    service = services.get("edge")
    if service is None:
        raise EnvironmentFault(f"the service edge is missing in {plan.namespace}: apply the program again")
    name = plan.settings.edge.hosts[0]
    balanced = (service.get("status") or {}).get("loadBalancer", {}).get("ingress") or []
    if balanced:
        return Edge(f"https://{balanced[0].get('hostname') or balanced[0]['ip']}", files.ca_file, name)
    for entry in service["spec"]["ports"]:
        if entry["port"] == HTTPS and entry.get("nodePort"):
            return Edge(f"https://{node}:{entry['nodePort']}", files.ca_file, name)
    raise EnvironmentFault(
        f"the edge of {plan.environment} is a {plan.settings.edge.service} without an address outside: experiments "
        "need kubernetes.edge.service NodePort, or a load balancer that has been given its address"
    )
