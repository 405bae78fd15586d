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
from infra.kubernetes.plan import (
    CONFIG_DIR,
    MAGE,
    MAGE_STATUS,
    MODELS_DIR,
    PRIVATE_DIR,
    PYTHON,
    SECRETS_DIR,
    KubernetesPlan,
)
from infra.names import APP_ROLE, MAGE_DATABASE, MAGE_ROLE, MAGE_SHARD
from infra.on_kubernetes import Resources, Volume
from services.etl.run import RunConfig
from services.etl.scheduler import SchedulerConfig

DATA_DIR: Final = Path("/var/lib/mage")
MAGE_PYTHON: Final = Path("/opt/mage/bin/python")
"""Mage's own environment in the image, beside ours."""
FILE: Final = "mage.json"
STEPS_FILE: Final = "etl.json"
PRIVATE: Final = ("pgpass", "mage_pgpass", "mage_owner", "mage_session", "mage_trigger")
ANY_HOST: Final = "0.0.0.0"  # noqa: S104 - a pod's; its NetworkPolicy lets nobody in, the node's probes come anyway


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

    def files(self) -> dict[str, str]:
        plan = self.plan
        steps = RunConfig(
            environment=plan.environment,
            member="mage",
            etcd=plan.etcd_urls,
            shards=plan.all_shards(),
            registry=plan.registry_endpoints(),
            artifacts=plan.artifacts,
            directory=DATA_DIR / "runs",
        )
        database = plan.shard_endpoints(MAGE_SHARD, user=MAGE_ROLE, dbname=MAGE_DATABASE)
        config = SchedulerConfig(
            member="mage",
            host=ANY_HOST,
            port=MAGE,
            status_port=MAGE_STATUS,
            mage_python=MAGE_PYTHON,
            directory=DATA_DIR,
            database=database.model_copy(update={"passfile": PRIVATE_DIR / "mage_pgpass"}),
            run_config=CONFIG_DIR / STEPS_FILE,
            owner_password=PRIVATE_DIR / "mage_owner",
            session_secret=PRIVATE_DIR / "mage_session",
            trigger_token=PRIVATE_DIR / "mage_trigger",
            schedule=plan.topology.mage.schedule,
        )
        return {
            FILE: config.model_dump_json(indent=2) + "\n",
            STEPS_FILE: steps.model_dump_json(indent=2) + "\n",
        }


class Mage(Component):
    host: pulumi.Output[str]

    def __init__(
        self, name: str, config: MageConfig, secrets: StackSecrets, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__(name, opts)
        plan, files = config.plan, config.files()
        settings = core.v1.ConfigMap(name, pods.config_map(plan, name, "mage", files), opts=self.child())
        tls = secret_object(plan, f"{name}-tls", "mage", self.child(), text=secrets.client_tls())
        text = {
            "pgpass": secrets.passfile(APP_ROLE, "postgres_app"),
            "mage_pgpass": secrets.passfile(MAGE_ROLE, "mage_database"),
            **{secret: secrets[secret] for secret in ("mage_owner", "mage_session", "mage_trigger")},
        }
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
            opts=self.child(protect=plan.protects_data),
        )
        # nobody waits for it: Pulumi calls it made once a pod answers behind it
        core.v1.Service(
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
                    template=pods.template(plan, "mage", _pod(config), annotations=pods.digest(files)),
                ),
            ),
            opts=self.child(after=[settings, tls, own, data]),
        )
        self.host = self.scheduler.id.apply(lambda _: plan.service_host("mage"))
        self.register_outputs({"host": self.host})


def _pod(config: MageConfig) -> core.v1.PodSpecArgs:
    plan = config.plan
    claim = core.v1.PersistentVolumeClaimVolumeSourceArgs(claim_name="mage")
    return pods.pod(
        plan,
        "mage",
        init=[pods.install_private(config.image, [SECRETS_DIR / name for name in PRIVATE])],
        containers=[
            pods.container(
                "mage",
                config.image,
                [PYTHON, "-m", "services.etl.scheduler", str(CONFIG_DIR / FILE)],
                config.sizes,
                [
                    pods.mount("data", DATA_DIR, writable=True),
                    pods.mount("models", MODELS_DIR, writable=True),
                    pods.CONFIG_MOUNT,
                    pods.TLS_MOUNT,
                    pods.PRIVATE_MOUNT,
                    pods.TMP_MOUNT,
                ],
                env={"HOME": str(DATA_DIR), **plan.etcd_client_variables},
                ports={"http": MAGE, "status": MAGE_STATUS},
                startup_probe=pods.tcp_probe(MAGE_STATUS, pods.Timing(1, 1, 60)),
                # whether runs really start; its watch ends the process itself when only a new start can help
                readiness_probe=pods.http_probe("/ready", MAGE_STATUS, pods.Timing(10, 5, 3)),
                liveness_probe=pods.tcp_probe(MAGE_STATUS, pods.Timing(20, 5, 6)),
            )
        ],
        volumes=[
            core.v1.VolumeArgs(name="data", persistent_volume_claim=claim),
            models_volume(),
            pods.config_volume("mage"),
            pods.secret_volume("tls", "mage-tls"),
            pods.secret_volume("secrets", "mage-secrets"),
            pods.scratch_volume("private", memory=True, limit_mb=1),
            pods.scratch_volume(limit_mb=1024),
        ],
        grace_s=60,
    )
