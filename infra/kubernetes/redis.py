"""Redis: one cache, in memory only, TLS and a password; losing it costs computation and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import pulumi
from pulumi_kubernetes import apps, core, meta

from infra.kubernetes import pods
from infra.kubernetes.component import Component
from infra.kubernetes.credentials import StackSecrets, secret_object
from infra.kubernetes.plan import CONFIG_DIR, REDIS, SECRETS_DIR, TLS_DIR, KubernetesPlan
from infra.on_kubernetes import Resources

OVERHEAD_MB: Final = 64
"""Beside the data: the server itself, connections' buffers, fragmentation (a third of the data at worst)."""
PROBER: Final = "prober"
"""May say PING and nothing else, so it needs no password and none stands in a probe."""


@dataclass(frozen=True, slots=True)
class RedisConfig:
    plan: KubernetesPlan
    image: str
    max_memory_mb: int

    @classmethod
    def of(cls, plan: KubernetesPlan) -> RedisConfig:
        return cls(plan, plan.settings.images.reference("redis"), plan.topology.redis.max_memory_mb)

    @property
    def sizes(self) -> Resources:
        return Resources(cpu_m=50, cpu_limit_m=1000, memory_mb=self.max_memory_mb * 4 // 3 + OVERHEAD_MB)

    def file(self) -> str:
        lines = (
            f"port 0\ntls-port {REDIS}",
            f"tls-cert-file {TLS_DIR}/tls.crt",
            f"tls-key-file {TLS_DIR}/tls.key",
            f"tls-ca-cert-file {TLS_DIR}/ca.crt",
            "# clients prove themselves by password",
            "tls-auth-clients no",
            'tls-protocols "TLSv1.2 TLSv1.3"',
            f"aclfile {SECRETS_DIR}/users.acl",
            "daemonize no",
            "dir /tmp",
            "# a cache: whatever it holds can be computed again, so nothing goes to disk",
            'save ""',
            "appendonly no",
            f"maxmemory {self.max_memory_mb}mb",
            "maxmemory-policy allkeys-lru",
        )
        return "\n".join(lines) + "\n"


class Redis(Component):
    host: pulumi.Output[str]

    def __init__(
        self, name: str, config: RedisConfig, secrets: StackSecrets, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__(name, opts)
        plan, files = config.plan, {"redis.conf": config.file()}
        tls = secret_object(plan, f"{name}-tls", "redis", self.child(), text=secrets.tls("redis"))
        users = pulumi.Output.format(
            "user default on >{0} ~* &* +@all\nuser " + PROBER + " on nopass resetkeys -@all +ping\n", secrets["redis"]
        )
        acl = secret_object(plan, f"{name}-users", "redis", self.child(), text={"users.acl": users})
        settings = core.v1.ConfigMap(name, pods.config_map(plan, name, "redis", files), opts=self.child())
        # nobody waits for it: Pulumi calls it made once a pod answers behind it
        core.v1.Service(
            name,
            core.v1.ServiceInitArgs(
                metadata=pods.metadata(plan, name, "redis"),
                spec=core.v1.ServiceSpecArgs(
                    selector=plan.labels("redis"), ports=[core.v1.ServicePortArgs(name="redis", port=REDIS)]
                ),
            ),
            opts=self.child(),
        )
        self.cache = apps.v1.Deployment(
            name,
            apps.v1.DeploymentInitArgs(
                metadata=pods.metadata(plan, name, "redis"),
                spec=apps.v1.DeploymentSpecArgs(
                    # one: the cache may be empty at any time. A Deployment moves it off a lost node by itself.
                    replicas=1,
                    strategy=apps.v1.DeploymentStrategyArgs(
                        type="RollingUpdate",
                        rolling_update=apps.v1.RollingUpdateDeploymentArgs(max_surge=1, max_unavailable=0),
                    ),
                    selector=meta.v1.LabelSelectorArgs(match_labels=plan.labels("redis")),
                    template=pods.template(plan, "redis", _pod(config), annotations=pods.digest(files)),
                ),
            ),
            opts=self.child(after=[tls, acl, settings]),
        )
        self.host = self.cache.id.apply(lambda _: plan.service_host("redis"))
        self.register_outputs({"host": self.host})


def _pod(config: RedisConfig) -> core.v1.PodSpecArgs:
    ping = ["/usr/bin/redis-cli", "-e", "-p", str(REDIS), "--tls", "--cacert", f"{TLS_DIR}/ca.crt"]
    ping += ["--user", PROBER, "--pass", "", "--no-auth-warning", "ping"]
    return pods.pod(
        config.plan,
        "redis",
        containers=[
            pods.container(
                "redis",
                config.image,
                ["/usr/bin/redis-server", str(CONFIG_DIR / "redis.conf")],
                config.sizes,
                [pods.CONFIG_MOUNT, pods.TLS_MOUNT, pods.SECRETS_MOUNT, pods.TMP_MOUNT],
                ports={"redis": REDIS},
                startup_probe=pods.tcp_probe(REDIS, pods.Timing(1, 1, 30)),
                readiness_probe=pods.exec_probe(ping, pods.Timing(5, 3, 2)),
                liveness_probe=pods.tcp_probe(REDIS, pods.Timing(10, 5, 3)),
            )
        ],
        volumes=[
            pods.config_volume("redis"),
            pods.secret_volume("tls", "redis-tls"),
            pods.secret_volume("secrets", "redis-users"),
            pods.scratch_volume(),
        ],
        grace_s=10,
        tolerations=pods.move_soon(),
    )
