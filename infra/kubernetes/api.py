"""The API: stateless replicas that the autoscaler counts, updated by surge and drained before they end."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pulumi
from pulumi_kubernetes import apps, autoscaling, core, meta, policy

from infra.kubernetes import pods
from infra.kubernetes.component import Component
from infra.kubernetes.credentials import StackSecrets, secret_object
from infra.kubernetes.plan import (
    API,
    API_AGENT,
    CONFIG_DIR,
    MEMBER_DIR,
    MODELS_DIR,
    PYTHON,
    REDIS,
    SECRETS_DIR,
    TLS_DIR,
    KubernetesPlan,
)
from infra.names import APP_ROLE
from infra.on_kubernetes import Resources, Volume
from infra.topology import Api as ApiTopology

MODELS_CLAIM: Final = "models"
GENMODEL_JAR: Final = Path("/opt/breakwater/h2o-genmodel.jar")
LEAVE_S: Final = 5
"""CoreDNS serves a name for 5 s: so long the edge may still find a pod that leaves."""
GRACE_S: Final = 30
"""The pause, 1 s until the edge believes, 8 s for requests in progress, the pools' end; with room."""
CALM_S: Final = 300
"""No scaling down for so long after a peak: a replica that comes back must warm its model and fill its pools."""
IN_FLIGHT: Final = "breakwater_api_in_flight"
"""Requests that a replica is answering (services/api/metrics.py): they grow while it waits, when its CPU does not."""
MEMORY_MB: Final = 256
"""The last pointer, and copies of artifacts where the store is remote; it ends with the pod."""


@dataclass(frozen=True, slots=True)
class ApiConfig:
    plan: KubernetesPlan
    api: ApiTopology
    image: str
    sizes: Resources
    models: Volume
    cpu_target: int
    in_flight_target: int | None

    @classmethod
    def of(cls, plan: KubernetesPlan) -> ApiConfig:
        settings = plan.settings
        return cls(
            plan=plan,
            api=plan.topology.api,
            image=settings.images.reference("api"),
            sizes=settings.sizes.api,
            models=settings.volumes.models,
            cpu_target=settings.api_cpu_target,
            in_flight_target=settings.api_in_flight_target,
        )

    def file(self) -> str:
        """services/api/settings.py; each replica is named by its pod."""
        plan = self.plan
        settings = {
            "environment": plan.environment,
            "replica": "api",
            "host": "0.0.0.0",  # noqa: S104 - a pod's; its NetworkPolicy lets the edge in and nobody else
            "port": API,
            "agent_port": API_AGENT,
            "token_file": str(SECRETS_DIR / "api_token"),
            "admin_token_file": str(SECRETS_DIR / "admin_token"),
            "redis": {
                "host": plan.service_host("redis"),
                "port": REDIS,
                "password_file": str(SECRETS_DIR / "redis"),
                "root_certificate": str(TLS_DIR / "ca.crt"),
            },
            "etcd": list(plan.etcd_urls),
            "shards": [endpoints.model_dump(mode="json") for endpoints in plan.all_shards()],
            "pool": self.api.pool.model_dump(mode="json"),
            "registry": plan.registry_endpoints().model_dump(mode="json"),
            "artifacts": plan.artifacts,
            "models_dir": str(MEMBER_DIR),
            "genmodel_jar": str(GENMODEL_JAR),
            "jvm_heap_mb": self.api.jvm_heap_mb,
            "watchdog_ms": self.api.watchdog_ms,
            "chaos": plan.topology.chaos.allows("api"),
        }
        return json.dumps(settings, indent=2) + "\n"


class Api(Component):
    host: pulumi.Output[str]

    def __init__(
        self, name: str, config: ApiConfig, secrets: StackSecrets, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__(name, opts)
        plan, files = config.plan, {"api.json": config.file()}
        settings = core.v1.ConfigMap(name, pods.config_map(plan, name, "api", files), opts=self.child())
        tls = secret_object(plan, f"{name}-tls", "api", self.child(), text=secrets.client_tls())
        text = {
            "api_token": secrets["api_token"],
            "admin_token": secrets["admin_token"],
            "redis": secrets["redis"],
            "pgpass": secrets.passfile(APP_ROLE, "postgres_app"),
        }
        own = secret_object(plan, f"{name}-secrets", "api", self.child(), text=text)
        models = core.v1.PersistentVolumeClaim(
            MODELS_CLAIM,
            pods.claim(
                plan,
                MODELS_CLAIM,
                "api",
                size_gb=config.models.size_gb,
                storage_class=config.models.storage_class,
                mode="ReadWriteMany",
            ),
            opts=self.child(protect=plan.protects_data),
        )
        service = core.v1.Service(
            name,
            core.v1.ServiceInitArgs(
                metadata=pods.metadata(plan, name, "api"),
                spec=core.v1.ServiceSpecArgs(
                    cluster_ip="None",
                    # the edge judges replicas by its own checks, five times a second; DNS only tells it who there is
                    publish_not_ready_addresses=True,
                    selector=plan.labels("api"),
                    ports=[core.v1.ServicePortArgs(name="http", port=API)],
                ),
            ),
            opts=self.child(),
        )
        policy.v1.PodDisruptionBudget(
            name, pods.budget(plan, name, "api", may_leave=1, sick_may_leave=True), opts=self.child()
        )
        self.replicas = apps.v1.Deployment(
            name,
            apps.v1.DeploymentInitArgs(
                metadata=pods.metadata(
                    plan,
                    name,
                    "api",
                    # Before the first training there is no model, so no replica is ready and Pulumi would wait in vain.
                    annotations={"pulumi.com/waitFor": "condition=Progressing"},
                ),
                spec=apps.v1.DeploymentSpecArgs(
                    # no `replicas`: the autoscaler owns it, and setting it would undo the autoscaler's choice
                    strategy=apps.v1.DeploymentStrategyArgs(
                        type="RollingUpdate",
                        rolling_update=apps.v1.RollingUpdateDeploymentArgs(
                            max_surge=config.api.surge, max_unavailable=0
                        ),
                    ),
                    selector=meta.v1.LabelSelectorArgs(match_labels=plan.labels("api")),
                    template=pods.template(plan, "api", _pod(config), annotations=pods.digest(files)),
                ),
            ),
            opts=self.child(after=[settings, tls, own, models, service]),
        )
        autoscaling.v2.HorizontalPodAutoscaler(
            name,
            autoscaling.v2.HorizontalPodAutoscalerInitArgs(
                metadata=pods.metadata(plan, name, "api"), spec=_scaling(config)
            ),
            opts=self.child(after=[self.replicas]),
        )
        self.host = self.replicas.id.apply(lambda _: plan.service_host("api"))
        self.register_outputs({"host": self.host})


def _scaling(config: ApiConfig) -> autoscaling.v2.HorizontalPodAutoscalerSpecArgs:
    metrics = [
        autoscaling.v2.MetricSpecArgs(
            type="Resource",
            resource=autoscaling.v2.ResourceMetricSourceArgs(
                name="cpu",
                target=autoscaling.v2.MetricTargetArgs(type="Utilization", average_utilization=config.cpu_target),
            ),
        )
    ]
    if config.in_flight_target is not None:
        metrics.append(
            autoscaling.v2.MetricSpecArgs(
                type="Pods",
                pods=autoscaling.v2.PodsMetricSourceArgs(
                    metric=autoscaling.v2.MetricIdentifierArgs(name=IN_FLIGHT),
                    target=autoscaling.v2.MetricTargetArgs(
                        type="AverageValue", average_value=str(config.in_flight_target)
                    ),
                ),
            )
        )
    return autoscaling.v2.HorizontalPodAutoscalerSpecArgs(
        min_replicas=config.api.replicas,
        max_replicas=config.api.max_replicas,
        scale_target_ref=autoscaling.v2.CrossVersionObjectReferenceArgs(
            api_version="apps/v1", kind="Deployment", name="api"
        ),
        metrics=metrics,
        behavior=autoscaling.v2.HorizontalPodAutoscalerBehaviorArgs(
            scale_down=autoscaling.v2.HPAScalingRulesArgs(stabilization_window_seconds=CALM_S)
        ),
    )


def _pod(config: ApiConfig) -> core.v1.PodSpecArgs:
    plan = config.plan
    return pods.pod(
        plan,
        "api",
        init=[pods.install_private(config.image, [SECRETS_DIR / "pgpass"])],
        containers=[
            pods.container(
                "api",
                config.image,
                [PYTHON, "-m", "services.api"],
                config.sizes,
                [
                    pods.CONFIG_MOUNT,
                    pods.SECRETS_MOUNT,
                    pods.TLS_MOUNT,
                    pods.PRIVATE_MOUNT,
                    pods.TMP_MOUNT,
                    pods.mount("memory", MEMBER_DIR, writable=True),
                    pods.mount("models", MODELS_DIR),
                ],
                env={
                    "BREAKWATER_API_CONFIG": str(CONFIG_DIR / "api.json"),
                    "BREAKWATER_REPLICA": "$(POD_NAME)",
                    **plan.etcd_client_variables,
                },
                ports={"http": API, "agent": API_AGENT},
                startup_probe=pods.http_probe("/healthz", API, pods.Timing(1, 2, 60)),
                readiness_probe=pods.http_probe("/readyz", API, pods.Timing(2, 2, 2)),
                # a connection, not a request: killing replicas for being busy makes the others busier
                liveness_probe=pods.tcp_probe(API, pods.Timing(10, 5, 3)),
                lifecycle=pods.pause_before_stop(LEAVE_S),
            )
        ],
        volumes=[
            pods.config_volume("api"),
            pods.secret_volume("tls", "api-tls"),
            pods.secret_volume("secrets", "api-secrets"),
            pods.scratch_volume("private", memory=True, limit_mb=1),
            pods.scratch_volume(),
            pods.scratch_volume("memory", limit_mb=MEMORY_MB),
            models_volume(),
        ],
        grace_s=GRACE_S,
        tolerations=pods.move_soon(),
        **pods.spread(plan, "api"),
    )


def models_volume() -> core.v1.VolumeArgs:
    source = core.v1.PersistentVolumeClaimVolumeSourceArgs(claim_name=MODELS_CLAIM)
    return core.v1.VolumeArgs(name="models", persistent_volume_claim=source)
