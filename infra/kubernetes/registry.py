"""The model registry's reconciler: one process that keeps etcd's pointers what the registry's rows say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import pulumi
from pulumi_kubernetes import apps, core, meta

from infra.kubernetes import pods
from infra.kubernetes.api import models_volume
from infra.kubernetes.component import Component
from infra.kubernetes.credentials import StackSecrets, secret_object
from infra.kubernetes.plan import (
    CONFIG_DIR,
    MEMBER_DIR,
    MODELS_DIR,
    PYTHON,
    REGISTRY_STATUS,
    SECRETS_DIR,
    KubernetesPlan,
)
from infra.names import APP_ROLE
from infra.on_kubernetes import Resources
from services.registry.reconciler import ReconcilerConfig

FILE: Final = "reconciler.json"
GRACE_S: Final = 10
"""A round takes well under a second; one that is cut off is done again by the next process."""


@dataclass(frozen=True, slots=True)
class RegistryConfig:
    plan: KubernetesPlan
    image: str
    sizes: Resources

    @classmethod
    def of(cls, plan: KubernetesPlan) -> RegistryConfig:
        return cls(plan, plan.settings.images.reference("api"), plan.settings.sizes.registry)

    def file(self) -> str:
        plan = self.plan
        config = ReconcilerConfig(
            environment=plan.environment,
            member="registry",
            host="0.0.0.0",  # noqa: S104 - a pod's; its NetworkPolicy lets nobody in, the node's probes come anyway
            status_port=REGISTRY_STATUS,
            etcd=plan.etcd_urls,
            database=plan.registry_endpoints(),
            artifacts=plan.artifacts,
            directory=MEMBER_DIR,
        )
        return config.model_dump_json(indent=2) + "\n"


class Registry(Component):
    def __init__(
        self, name: str, config: RegistryConfig, secrets: StackSecrets, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__(name, opts)
        plan, files = config.plan, {FILE: config.file()}
        settings = core.v1.ConfigMap(name, pods.config_map(plan, name, "registry", files), opts=self.child())
        tls = secret_object(plan, f"{name}-tls", "registry", self.child(), text=secrets.client_tls())
        text = {"pgpass": secrets.passfile(APP_ROLE, "postgres_app")}
        own = secret_object(plan, f"{name}-secrets", "registry", self.child(), text=text)
        self.reconciler = apps.v1.Deployment(
            name,
            apps.v1.DeploymentInitArgs(
                metadata=pods.metadata(plan, name, "registry"),
                spec=apps.v1.DeploymentSpecArgs(
                    # one is enough: models serve on without it. Two during an update do no harm, a repair is one
                    # compare-and-swap.
                    replicas=1,
                    strategy=apps.v1.DeploymentStrategyArgs(
                        type="RollingUpdate",
                        rolling_update=apps.v1.RollingUpdateDeploymentArgs(max_surge=1, max_unavailable=0),
                    ),
                    selector=meta.v1.LabelSelectorArgs(match_labels=plan.labels("registry")),
                    template=pods.template(plan, "registry", _pod(config), annotations=pods.digest(files)),
                ),
            ),
            opts=self.child(after=[settings, tls, own]),
        )
        self.register_outputs({"reconciler": self.reconciler.metadata.name})


def _pod(config: RegistryConfig) -> core.v1.PodSpecArgs:
    plan = config.plan
    return pods.pod(
        plan,
        "registry",
        init=[pods.install_private(config.image, [SECRETS_DIR / "pgpass"])],
        containers=[
            pods.container(
                "reconciler",
                config.image,
                [PYTHON, "-m", "services.registry.reconciler", str(CONFIG_DIR / FILE)],
                config.sizes,
                [
                    pods.CONFIG_MOUNT,
                    pods.TLS_MOUNT,
                    pods.PRIVATE_MOUNT,
                    pods.TMP_MOUNT,
                    pods.mount("memory", MEMBER_DIR, writable=True),
                    pods.mount("models", MODELS_DIR),
                ],
                env=plan.etcd_client_variables,
                ports={"status": REGISTRY_STATUS},
                startup_probe=pods.tcp_probe(REGISTRY_STATUS, pods.Timing(1, 1, 60)),
                readiness_probe=pods.http_probe("/ready", REGISTRY_STATUS, pods.Timing(5, 3, 2)),
                # a connection: without the database its rounds fail, and starting it anew would not bring that back
                liveness_probe=pods.tcp_probe(REGISTRY_STATUS, pods.Timing(10, 5, 3)),
            )
        ],
        volumes=[
            pods.config_volume("registry"),
            pods.secret_volume("tls", "registry-tls"),
            pods.secret_volume("secrets", "registry-secrets"),
            pods.scratch_volume("private", memory=True, limit_mb=1),
            pods.scratch_volume(),
            pods.scratch_volume("memory"),
            models_volume(),
        ],
        grace_s=GRACE_S,
        tolerations=pods.move_soon(),
    )
