"""The edge: HAProxy replicas that end TLS 1.3 and find the API's replicas by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import pulumi
from pulumi_kubernetes import apps, core, meta, policy

from infra import haproxy
from infra.kubernetes import pods
from infra.kubernetes.component import Component
from infra.kubernetes.credentials import StackSecrets, secret_object
from infra.kubernetes.names import certificate, key
from infra.kubernetes.plan import API, API_AGENT, CONFIG_DIR, EDGE, EDGE_HEALTH, TLS_DIR, KubernetesPlan
from infra.on_kubernetes import Edge as EdgeTopology
from infra.on_kubernetes import Resources

HTTPS: Final = 443
LEAVE_S: Final = 10
"""Until every node's proxy and a load balancer's health check have taken the pod out."""
HARD_STOP_S: Final = 20
"""Connections that clients keep open end after that; the grace period below holds both."""
GRACE_S: Final = 45


@dataclass(frozen=True, slots=True)
class EdgeConfig:
    plan: KubernetesPlan
    edge: EdgeTopology
    image: str
    sizes: Resources
    backends: int

    @classmethod
    def of(cls, plan: KubernetesPlan) -> EdgeConfig:
        settings, api = plan.settings, plan.topology.api
        return cls(
            plan=plan,
            edge=settings.edge,
            image=settings.images.reference("edge"),
            sizes=settings.sizes.edge,
            backends=api.max_replicas + api.surge,
        )

    def file(self) -> str:
        api = f"{self.plan.service_host('api')}:{API}"
        return haproxy.render(
            haproxy.EdgeFiles(
                bind=f":{EDGE}",
                certificate=f"{TLS_DIR}/edge.pem",
                servers=[
                    f"server-template api- {self.backends} {api} resolvers cluster resolve-prefer ipv4 init-addr none "
                    f"{haproxy.CHECK} {haproxy.agent_check(API_AGENT)}"
                ],
                global_lines=[f"hard-stop-after {HARD_STOP_S}s"],
                sections=[
                    "resolvers cluster",
                    "    parse-resolv-conf",
                    "    accepted_payload_size 8192",
                    "    resolve_retries 2",
                    "    timeout resolve 1s",
                    "    timeout retry 500ms",
                    "    # an address that is gone was a pod; a resolver that is silent says nothing about pods",
                    "    hold valid 1s",
                    "    hold obsolete 0s",
                    "    hold timeout 600s",
                    "    hold refused 600s",
                    "    hold nx 600s",
                    "    hold other 600s",
                    "frontend health",
                    f"    bind :{EDGE_HEALTH}",
                    "    monitor-uri /healthz",
                    "    # one that just started knows no replica's address yet, and would answer clients with 503",
                    "    monitor fail if { nbsrv(anyone) eq 0 }",
                ],
            )
        )


class Edge(Component):
    host: pulumi.Output[str]

    def __init__(
        self, name: str, config: EdgeConfig, secrets: StackSecrets, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__(name, opts)
        plan, files = config.plan, {"haproxy.cfg": config.file()}
        settings = core.v1.ConfigMap(name, pods.config_map(plan, name, "edge", files), opts=self.child())
        bundle = pulumi.Output.concat(secrets[certificate("edge")], secrets[key("edge")])
        tls = secret_object(plan, f"{name}-tls", "edge", self.child(), text={"edge.pem": bundle})
        service = core.v1.Service(
            name,
            core.v1.ServiceInitArgs(
                metadata=pods.metadata(plan, name, "edge"),
                spec=core.v1.ServiceSpecArgs(
                    type=config.edge.service,
                    selector=plan.labels("edge"),
                    ports=[core.v1.ServicePortArgs(name="https", port=HTTPS, target_port=EDGE)],
                ),
            ),
            opts=self.child(),
        )
        policy.v1.PodDisruptionBudget(
            name, pods.budget(plan, name, "edge", may_leave=1, sick_may_leave=True), opts=self.child()
        )
        self.replicas = apps.v1.Deployment(
            name,
            apps.v1.DeploymentInitArgs(
                metadata=pods.metadata(plan, name, "edge"),
                spec=apps.v1.DeploymentSpecArgs(
                    replicas=config.edge.replicas,
                    strategy=apps.v1.DeploymentStrategyArgs(
                        type="RollingUpdate",
                        rolling_update=apps.v1.RollingUpdateDeploymentArgs(max_surge=1, max_unavailable=0),
                    ),
                    selector=meta.v1.LabelSelectorArgs(match_labels=plan.labels("edge")),
                    template=pods.template(plan, "edge", _pod(config), annotations=pods.digest(files)),
                ),
            ),
            opts=self.child(after=[settings, tls]),
        )
        self.host = service.metadata.name.apply(lambda _: plan.service_host("edge"))
        self.register_outputs({"host": self.host})


def _pod(config: EdgeConfig) -> core.v1.PodSpecArgs:
    return pods.pod(
        config.plan,
        "edge",
        containers=[
            pods.container(
                "haproxy",
                config.image,
                ["/usr/sbin/haproxy", "-db", "-f", str(CONFIG_DIR / "haproxy.cfg")],
                config.sizes,
                [pods.CONFIG_MOUNT, pods.TLS_MOUNT],
                ports={"https": EDGE, "health": EDGE_HEALTH},
                startup_probe=pods.tcp_probe(EDGE_HEALTH, pods.Timing(1, 1, 30)),
                # the edge itself, as soon as it knows whom to ask: with no replica ready it still says so to clients
                readiness_probe=pods.http_probe("/healthz", EDGE_HEALTH, pods.Timing(2, 2, 2)),
                liveness_probe=pods.tcp_probe(EDGE_HEALTH, pods.Timing(10, 5, 3)),
                lifecycle=pods.pause_before_stop(LEAVE_S),
            )
        ],
        volumes=[pods.config_volume("edge"), pods.secret_volume("tls", "edge-tls")],
        grace_s=GRACE_S,
        tolerations=pods.move_soon(),
        **pods.spread(config.plan, "edge"),
    )
