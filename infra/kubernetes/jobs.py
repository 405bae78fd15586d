"""Jobs that bring the data up to date: roles, databases and schema, then the first load. Each may run twice."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import pulumi
from pulumi_kubernetes import batch, core

from infra.kubernetes import pods
from infra.kubernetes.component import Component
from infra.kubernetes.credentials import StackSecrets, secret_object
from infra.kubernetes.plan import CONFIG_DIR, PRIVATE_DIR, PYTHON, SECRETS_DIR, KubernetesPlan
from infra.names import APP_ROLE, FEATURES_DATABASE, MAGE_DATABASE, MAGE_ROLE, MAGE_SHARD, REGISTRY_SHARD
from infra.on_kubernetes import Resources
from services.postgres.patroni import SUPERUSER
from services.registry import registry

TRIES: Final = 10
"""With Kubernetes' growing pauses (10 s, 20 s, ...) more than half an hour: a shard may still be cloning."""
PATIENCE_S: Final = 60
"""Pulumi waits so much longer than a Job may take: then it tells why the Job failed, and not that time was up."""


@dataclass(frozen=True, slots=True)
class JobConfig:
    """`deadline_s` ends a Job that hangs; the next `pulumi up` replaces it."""

    plan: KubernetesPlan
    name: Literal["migrate", "load"]
    image: str
    sizes: Resources
    module: str
    content: dict[str, Any]
    roles: tuple[tuple[str, str], ...]
    passwords: tuple[str, ...]
    deadline_s: int

    @classmethod
    def migrate(cls, plan: KubernetesPlan) -> JobConfig:
        """As superuser: makes roles and databases, then the schema as the application's role."""
        features = {
            "role": APP_ROLE,
            "database": FEATURES_DATABASE,
            "password_file": str(SECRETS_DIR / "postgres_app"),
            "shards": list(plan.shards),
            "observes": True,
        }
        models = {**features, "database": registry.DATABASE, "shards": [REGISTRY_SHARD]}
        mage = {
            "role": MAGE_ROLE,
            "database": MAGE_DATABASE,
            "password_file": str(SECRETS_DIR / "mage_database"),
            "shards": [MAGE_SHARD],
        }
        admin = plan.all_shards(user=SUPERUSER, dbname="postgres")
        content = {
            "environment": plan.environment,
            "etcd": list(plan.etcd_urls),
            "admin": [shard.model_dump(mode="json") for shard in admin],
            "shards": [shard.model_dump(mode="json") for shard in plan.all_shards()],
            "registry": plan.registry_endpoints().model_dump(mode="json"),
            "owners": [features, models, mage],
        }
        return cls(
            plan=plan,
            name="migrate",
            image=plan.settings.images.reference("api"),
            sizes=plan.settings.sizes.job,
            module="services.featurestore.provision",
            content=content,
            roles=((APP_ROLE, "postgres_app"), (SUPERUSER, "postgres_superuser")),
            passwords=("postgres_app", "mage_database"),
            deadline_s=3600,
        )

    @classmethod
    def load(cls, plan: KubernetesPlan) -> JobConfig:
        content = {
            "environment": plan.environment,
            "etcd": list(plan.etcd_urls),
            "shards": [shard.model_dump(mode="json") for shard in plan.all_shards()],
        }
        return cls(
            plan=plan,
            name="load",
            image=plan.settings.images.reference("api"),
            sizes=plan.settings.sizes.job,
            module="services.etl",
            content=content,
            roles=((APP_ROLE, "postgres_app"),),
            passwords=(),
            deadline_s=7200,
        )

    def files(self) -> dict[str, str]:
        return {"job.json": json.dumps(self.content, indent=2) + "\n"}


class DataJob(Component):
    """One Job. A changed image or configuration replaces it, which runs it again; so does deleting it."""

    job: batch.v1.Job

    def __init__(
        self, name: str, config: JobConfig, secrets: StackSecrets, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__(name, opts)
        plan, files = config.plan, config.files()
        settings = core.v1.ConfigMap(name, pods.config_map(plan, name, config.name, files), opts=self.child())
        tls = secret_object(plan, f"{name}-tls", config.name, self.child(), text=secrets.client_tls())
        passfile = pulumi.Output.concat(*(secrets.passfile(role, secret) for role, secret in config.roles))
        text: dict[str, pulumi.Input[str]] = {"pgpass": passfile, **{key: secrets[key] for key in config.passwords}}
        own = secret_object(plan, f"{name}-secrets", config.name, self.child(), text=text)
        self.job = batch.v1.Job(
            name,
            batch.v1.JobInitArgs(
                metadata=pods.metadata(plan, name, config.name),
                spec=batch.v1.JobSpecArgs(
                    backoff_limit=TRIES,
                    active_deadline_seconds=config.deadline_s,
                    template=pods.template(plan, config.name, _pod(config), annotations=pods.digest(files)),
                ),
            ),
            # a Job's template is immutable and its name is fixed
            opts=self.child(after=[settings, tls, own], replace_first=True, wait_s=config.deadline_s + PATIENCE_S),
        )
        self.register_outputs({"job": self.job.metadata.name})


def _pod(config: JobConfig) -> core.v1.PodSpecArgs:
    name = config.name
    mounts: Sequence[core.v1.VolumeMountArgs] = (
        pods.CONFIG_MOUNT,
        pods.SECRETS_MOUNT,
        pods.TLS_MOUNT,
        pods.PRIVATE_MOUNT,
        pods.TMP_MOUNT,
    )
    return pods.pod(
        config.plan,
        name,
        init=[pods.install_private(config.image, [SECRETS_DIR / "pgpass"])],
        containers=[
            pods.container(
                name,
                config.image,
                [PYTHON, "-m", config.module, str(CONFIG_DIR / "job.json")],
                config.sizes,
                mounts,
                env={"HOME": str(PRIVATE_DIR), **config.plan.etcd_client_variables},
            )
        ],
        volumes=[
            pods.config_volume(name),
            pods.secret_volume("tls", f"{name}-tls"),
            pods.secret_volume("secrets", f"{name}-secrets"),
            pods.scratch_volume("private", memory=True, limit_mb=1),
            pods.scratch_volume(limit_mb=1024),
        ],
        grace_s=30,
        restart_policy="OnFailure",
    )
