"""How each server is configured and started: one function per kind, from the plan and the secrets to files and argv."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml

from infra import haproxy
from infra.local import mage
from infra.local import secrets as secret_files
from infra.local.account import Account
from infra.local.partition import group_of
from infra.local.plan import LOOPBACK, LocalPlan, MemberPlan
from infra.local.secrets import Secrets
from services.etl.run import RunConfig
from services.etl.scheduler import SchedulerConfig
from services.h2o.node import NodeConfig, Peer
from services.postgres import patroni
from services.registry.reconciler import ReconcilerConfig

POSTGRES_BIN: Final = Path("/usr/lib/postgresql/15/bin")
ETCD: Final = Path("/usr/bin/etcd")
REDIS: Final = Path("/usr/bin/redis-server")
HAPROXY: Final = Path("/usr/sbin/haproxy")
JAVA: Final = Path("/usr/bin/java")
CACHE_POLICY: Final = "allkeys-lru"
BINARIES: Final = (POSTGRES_BIN / "postgres", ETCD, REDIS, HAPROXY, JAVA)
VERSION_OF: Final = {
    "PostgreSQL": (str(POSTGRES_BIN / "postgres"), "--version"),
    "etcd": (str(ETCD), "--version"),
    "Redis": (str(REDIS), "--version"),
    "HAProxy": (str(HAPROXY), "-v"),
    "Java": (str(JAVA), "--version"),
}
"""How each is asked which one it is."""
PACKAGE_OF: Final = {"Patroni": "patroni", "H2O": "h2o"}
"""Servers that come as packages of this environment."""


@dataclass(frozen=True, slots=True)
class Program:
    """One supervised process of a member; `name` is unique in the environment.

    `group` is the number of a group that only this member's processes have; as root they run under it.
    """

    name: str
    member: str
    command: tuple[str, ...]
    directory: Path
    log: Path
    environment: tuple[tuple[str, str], ...] = ()
    stop_signal: str = "TERM"
    stop_wait_s: int = 20
    group: int | None = None


def python() -> str:
    """The interpreter of the environment that this command runs in, which the servers share."""
    return str(Path(sys.prefix) / "bin" / "python")


def prepare(plan: LocalPlan, secrets: Secrets, account: Account) -> tuple[Program, ...]:
    """Write every member's configuration and return what is to be supervised, in the order of members."""
    account.directory(plan.members_dir, 0o755)
    account.directory(plan.models_dir, 0o755)
    programs: list[Program] = []
    for member in plan.members:
        account.directory(member.directory)
        account.directory(member.directory / "log")
        kind = member.component.split("/", 1)[0]
        programs.extend(_RENDERERS[kind](plan, member, secrets, account))
    return tuple(programs)


def _program(member: MemberPlan, role: str, command: tuple[str, ...], **options: object) -> Program:
    return Program(
        name=f"{member.name}-{role}",
        member=member.name,
        command=command,
        directory=member.directory,
        log=member.directory / "log" / f"{role}.log",
        **options,  # type: ignore[arg-type]
    )


def _etcd(plan: LocalPlan, member: MemberPlan, secrets: Secrets, account: Account) -> list[Program]:
    peers = ",".join(f"{peer.name}=http://{LOOPBACK}:{peer.aux_port}" for peer in plan.of("etcd"))
    client, peer = f"http://{LOOPBACK}:{member.port}", f"http://{LOOPBACK}:{member.aux_port}"
    config = {
        "name": member.name,
        "data-dir": str(member.directory / "data"),
        "listen-client-urls": client,
        "advertise-client-urls": client,
        "listen-peer-urls": peer,
        "initial-advertise-peer-urls": peer,
        "initial-cluster": peers,
        "initial-cluster-token": f"breakwater-{plan.environment}",
        "initial-cluster-state": "new",
        "heartbeat-interval": 100,
        "election-timeout": 1000,
        "auto-compaction-mode": "periodic",
        "auto-compaction-retention": "1h",
        # With a configuration file etcd 3.4 leaves the gateway off unless it is asked for; Patroni and we need it.
        "enable-grpc-gateway": True,
        "logger": "zap",
        "log-level": "warn",
    }
    path = member.directory / "etcd.yaml"
    account.write(path, yaml.safe_dump(config))
    return [_program(member, "etcd", (str(ETCD), "--config-file", str(path)))]


def _postgres(plan: LocalPlan, member: MemberPlan, secrets: Secrets, account: Account) -> list[Program]:
    topology = plan.topology.postgres
    shard = member.shard
    if shard is None:
        raise AssertionError(f"{member.name} is planned without a shard")
    account.directory(member.directory / "run")
    settings = patroni.PatroniMember(
        scope=f"shard-{shard}",
        name=member.name,
        namespace=plan.patroni_namespace,
        host=LOOPBACK,
        port=member.port,
        rest_port=_aux_port(member),
        etcd=tuple(f"{LOOPBACK}:{peer.port}" for peer in plan.of("etcd")),
        directory=member.directory,
        bin_dir=POSTGRES_BIN,
        passwords=patroni.PatroniPasswords(
            superuser=secrets.superuser,
            replication=secrets.replication,
            rewind=secrets.rewind,
            rest=secrets.rest,
        ),
        ttl_s=topology.patroni.ttl,
        loop_wait_s=topology.patroni.loop_wait,
        retry_timeout_s=topology.patroni.retry_timeout,
        synchronous=topology.patroni.synchronous == "quorum",
        max_connections=topology.max_connections,
    )
    account.write(member.directory / "patroni.yaml", yaml.safe_dump(patroni.render(settings)))
    directory = str(member.directory)
    launcher = (python(), "-m", "services.postgres.launcher", directory)
    group = group_of(member)
    programs = [_program(member, "server", launcher, stop_wait_s=60, group=group)]
    if topology.warden.enabled:
        warden = {
            "member": member.name,
            "scope": settings.scope,
            "namespace": plan.patroni_namespace,
            "etcd": list(plan.etcd_urls),
            "rest_url": f"http://{LOOPBACK}:{member.aux_port}",
            "ttl_s": topology.patroni.ttl,
            "fence_margin_s": topology.warden.fence_margin,
            "directory": directory,
        }
        path = member.directory / "warden.json"
        account.write(path, json.dumps(warden, indent=2))
        command = (python(), "-m", "services.postgres.warden", str(path))
        programs.append(_program(member, "warden", command, group=group))
    return programs


def _redis(plan: LocalPlan, member: MemberPlan, secrets: Secrets, account: Account) -> list[Program]:
    path = member.directory / "redis.conf"
    lines = [
        f"bind {LOOPBACK}",
        f"port {member.port}",
        "protected-mode yes",
        f"requirepass {secrets.redis}",
        "daemonize no",
        f"dir {member.directory}",
        "# a cache: whatever it holds can be computed again, so nothing goes to disk",
        'save ""',
        "appendonly no",
        f"maxmemory {plan.topology.redis.max_memory_mb}mb",
        f"maxmemory-policy {CACHE_POLICY}",
    ]
    account.write(path, "\n".join(lines) + "\n")
    return [_program(member, "redis", (str(REDIS), str(path)))]


def _h2o(plan: LocalPlan, member: MemberPlan, secrets: Secrets, account: Account) -> list[Program]:
    limits = plan.topology.h2o
    config = NodeConfig(
        environment=plan.environment,
        name=member.name,
        nodes=tuple(Peer(name=node.name, host=LOOPBACK, port=node.port) for node in plan.of("h2o")),
        etcd=plan.etcd_urls,
        status_port=_aux_port(member),
        memory_mb=limits.memory_mb,
        heap_mb=limits.heap_mb,
        directory=member.directory,
    )
    path = member.directory / "node.json"
    account.write(path, config.model_dump_json(indent=2))
    return [_program(member, "node", (python(), "-m", "services.h2o.node", str(path)), stop_wait_s=10)]


def _registry(plan: LocalPlan, member: MemberPlan, secrets: Secrets, account: Account) -> list[Program]:
    config = ReconcilerConfig(
        environment=plan.environment,
        member=member.name,
        host=LOOPBACK,
        status_port=member.port,
        etcd=plan.etcd_urls,
        database=plan.registry_endpoints(),
        artifacts=plan.artifacts,
        directory=member.directory,
    )
    path = member.directory / "reconciler.json"
    account.write(path, config.model_dump_json(indent=2))
    return [_program(member, "reconciler", (python(), "-m", "services.registry.reconciler", str(path)))]


def _mage(plan: LocalPlan, member: MemberPlan, secrets: Secrets, account: Account) -> list[Program]:
    account.directory(plan.runs_dir)
    mage.own_artifacts(plan, account)
    steps = RunConfig(
        environment=plan.environment,
        member=member.name,
        etcd=plan.etcd_urls,
        shards=plan.all_shards(),
        registry=plan.registry_endpoints(),
        artifacts=plan.artifacts,
        directory=plan.runs_dir,
    )
    account.write(member.directory / "etl.json", steps.model_dump_json(indent=2))
    config = SchedulerConfig(
        member=member.name,
        host=LOOPBACK,
        port=member.port,
        status_port=_aux_port(member),
        mage_python=mage.python(),
        directory=member.directory,
        database=plan.mage_endpoints(),
        run_config=member.directory / "etl.json",
        owner_password=plan.secrets_dir / "mage_owner",
        session_secret=plan.secrets_dir / "mage_session",
        trigger_token=plan.secrets_dir / "mage_trigger",
        schedule=plan.topology.mage.schedule,
    )
    path = member.directory / "mage.json"
    account.write(path, config.model_dump_json(indent=2))
    return [_program(member, "scheduler", (python(), "-m", "services.etl.scheduler", str(path)))]


def _api(plan: LocalPlan, member: MemberPlan, secrets: Secrets, account: Account) -> list[Program]:
    redis = plan.member("redis-0")
    config = {
        "environment": plan.environment,
        "replica": member.name,
        "host": LOOPBACK,
        "port": member.port,
        "agent_port": _aux_port(member),
        "token_file": str(plan.token_file),
        "admin_token_file": str(plan.admin_token_file),
        "redis": {
            "host": LOOPBACK,
            "port": redis.port,
            "password_file": str(secret_files.redis_password_file(plan)),
        },
        "etcd": list(plan.etcd_urls),
        "shards": [endpoints.model_dump(mode="json") for endpoints in plan.all_shards()],
        "pool": plan.topology.api.pool.model_dump(mode="json"),
        "registry": plan.registry_endpoints().model_dump(mode="json"),
        "artifacts": plan.artifacts,
        "models_dir": str(plan.models_dir),
        "genmodel_jar": str(plan.genmodel_jar),
        "jvm_heap_mb": plan.topology.api.jvm_heap_mb,
        "watchdog_ms": plan.topology.api.watchdog_ms,
        "chaos": plan.topology.chaos.allows("api"),
        "traces": None if plan.topology.api.traces is None else plan.topology.api.traces.model_dump(),
    }
    path = member.directory / "api.json"
    account.write(path, json.dumps(config, indent=2))
    command = (python(), "-m", "services.api")
    return [_program(member, "api", command, environment=(("BREAKWATER_API_CONFIG", str(path)),))]


def _edge(plan: LocalPlan, member: MemberPlan, secrets: Secrets, account: Account) -> list[Program]:
    path = member.directory / "haproxy.cfg"
    account.write(path, edge_config(plan, member))
    # USR1 lets answers in flight finish; the supervisor kills what is left after stop_wait_s. USR2 makes the master
    # replace its worker without closing the listening socket.
    command = (str(HAPROXY), "-W", "-db", "-f", str(path))
    return [_program(member, "haproxy", command, stop_signal="USR1", stop_wait_s=5)]


def edge_config(plan: LocalPlan, member: MemberPlan) -> str:
    """HAProxy in front of the local replicas, which are known one by one."""
    return haproxy.render(
        haproxy.EdgeFiles(
            bind=f"{LOOPBACK}:{member.port}",
            certificate=f"{plan.tls_dir}/edge.pem",
            servers=[
                f"server {replica.name} {LOOPBACK}:{replica.port} {haproxy.CHECK} "
                f"{haproxy.agent_check(_aux_port(replica))}"
                for replica in plan.of("api")
            ],
            global_lines=[f"stats socket {member.directory}/admin.sock mode 600 level admin expose-fd listeners"],
        )
    )


def _aux_port(member: MemberPlan) -> int:
    if member.aux_port is None:
        raise AssertionError(f"{member.name} is planned without its second port")
    return member.aux_port


_RENDERERS: Final = {
    "etcd": _etcd,
    "postgres": _postgres,
    "redis": _redis,
    "h2o": _h2o,
    "registry": _registry,
    "mage": _mage,
    "api": _api,
    "edge": _edge,
}
