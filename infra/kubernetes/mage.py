"""Mage: the scheduler of ETL and training, one replica, its records on the first shard's servers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pulumi
from pulumi_kubernetes import apps, core, meta

from infra.kubernetes import pods
from infra.kubernetes.api import models_volume
from infra.kubernetes.component import Component
from infra.kubernetes.credentials import StackSecrets, secret_object
from infra.kubernetes.plan import MAGE, MODELS_DIR, POSTGRES, SECRETS_DIR, TLS_DIR, KubernetesPlan
from infra.names import APP_ROLE, MAGE_DATABASE, MAGE_ROLE, MAGE_SHARD
from infra.topology import Resources, Volume

DATA_DIR: Final = Path("/var/lib/mage")
START: Final = "/opt/breakwater/bin/mage-start"
"""The image's entry: takes the database's URL from its file, so that it stands in no manifest and no argv."""


@dataclass(frozen=True, slots=True)
class MageConfig:
    plan: KubernetesPlan
    image: str
    sizes: Resources
    volume: Volume

    @classmethod
    def of(cls, plan: KubernetesPlan) -> MageConfig:
        settings = plan.settings
        return cls(plan, settings.images.reference("mage"), settings.sizes.mage, settings.volumes.mage)

    def database_url(self, secrets: StackSecrets) -> pulumi.Output[str]:
        members = self.plan.shard_members(MAGE_SHARD)
        hosts = "&".join(f"host={self.plan.member_host('postgres', name)}:{POSTGRES}" for name in members)
        options = f"{hosts}&target_session_attrs=read-write&sslmode=verify-full&sslrootcert={TLS_DIR}/ca.crt"
        return pulumi.Output.format(
            "postgresql+psycopg2://{0}:{1}@/{2}?{3}",
            MAGE_ROLE,
            secrets["mage_database"],
            MAGE_DATABASE,
            options,
        )


class Mage(Component):
    host: pulumi.Output[str]

    def __init__(
        self, name: str, config: MageConfig, secrets: StackSecrets, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__(name, opts)
        plan = config.plan
        tls = secret_object(plan, f"{name}-tls", "mage", self.child(), text=secrets.client_tls())
        text = {"database_url": config.database_url(secrets), "pgpass": secrets.passfile(APP_ROLE, "postgres_app")}
        own = secret_object(plan, f"{name}-secrets", "mage", self.child(), text=text)
        data = core.v1.PersistentVolumeClaim(
            "mage",
            pods.claim(
                plan,
                "mage",
                "mage",
                size_gb=config.volume.size_gb,
                storage_class=config.volume.storage_class,
                mode="ReadWriteOnce",
            ),
            opts=self.child(),
        )
        service = core.v1.Service(
            name,
            core.v1.ServiceInitArgs(
                metadata=pods.metadata(plan, name, "mage"),
                spec=core.v1.ServiceSpecArgs(
                    selector=plan.labels("mage"), ports=[core.v1.ServicePortArgs(name="http", port=MAGE)]
                ),
            ),
            opts=self.child(),
        )
        self.scheduler = apps.v1.Deployment(
            name,
            apps.v1.DeploymentInitArgs(
                metadata=pods.metadata(plan, name, "mage"),
                spec=apps.v1.DeploymentSpecArgs(
                    # one, and never two during an update: two schedulers on one database stall each other
                    replicas=1,
                    strategy=apps.v1.DeploymentStrategyArgs(type="Recreate"),
                    selector=meta.v1.LabelSelectorArgs(match_labels=plan.labels("mage")),
                    template=pods.template(plan, "mage", _pod(config)),
                ),
            ),
            opts=self.child(after=[tls, own, data, service]),
        )
        self.host = self.scheduler.id.apply(lambda _: plan.service_host("mage"))
        self.register_outputs({"host": self.host})


def _pod(config: MageConfig) -> core.v1.PodSpecArgs:
    plan = config.plan
    claim = core.v1.PersistentVolumeClaimVolumeSourceArgs(claim_name="mage")
    return pods.pod(
        plan,
        "mage",
        init=[pods.install_private(config.image, [SECRETS_DIR / "pgpass", SECRETS_DIR / "database_url"])],
        containers=[
            pods.container(
                "mage",
                config.image,
                [START],
                config.sizes,
                [
                    pods.mount("data", DATA_DIR, writable=True),
                    pods.mount("models", MODELS_DIR, writable=True),
                    pods.TLS_MOUNT,
                    pods.PRIVATE_MOUNT,
                    pods.TMP_MOUNT,
                ],
                env={"HOME": str(DATA_DIR), "MAGE_DATA_DIR": str(DATA_DIR), **plan.etcd_client_variables},
                ports={"http": MAGE},
                startup_probe=pods.http_probe("/api/status", MAGE, pods.Timing(5, 5, 60)),
                readiness_probe=pods.http_probe("/api/status", MAGE, pods.Timing(10, 5, 3)),
                liveness_probe=pods.tcp_probe(MAGE, pods.Timing(20, 5, 6)),
            )
        ],
        volumes=[
            core.v1.VolumeArgs(name="data", persistent_volume_claim=claim),
            models_volume(),
            pods.secret_volume("tls", "mage-tls"),
            pods.secret_volume("secrets", "mage-secrets"),
            pods.scratch_volume("private", memory=True, limit_mb=1),
            pods.scratch_volume(limit_mb=1024),
        ],
        grace_s=60,
    )
