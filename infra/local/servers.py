"""How each server is configured and started: one function per kind, from the plan and the secrets to files and argv."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml

from infra.local import secrets as secret_files
from infra.local.account import Account
from infra.local.plan import LOOPBACK, LocalPlan, MemberPlan
from infra.local.secrets import Secrets
from services.postgres import patroni

POSTGRES_BIN: Final = Path("/usr/lib/postgresql/15/bin")
ETCD: Final = Path("/usr/bin/etcd")
REDIS: Final = Path("/usr/bin/redis-server")
HAPROXY: Final = Path("/usr/sbin/haproxy")
JAVA: Final = Path("/usr/bin/java")
BINARIES: Final = (POSTGRES_BIN / "postgres", ETCD, REDIS, HAPROXY, JAVA)

CHECK_INTERVAL_MS: Final = 200
CHECK_FALL: Final = 2
"""The edge takes a replica out after 2 missed checks of 200 ms: less than half a second."""
CHECK_AGAIN_MS: Final = 50
"""After a missed check the next one comes this soon: a process that is frozen as a whole answers nobody."""
CHECK_TIMEOUT_MS: Final = 400
"""A stalled replica counts as missed; shorter would take out one that merely collects garbage."""

EDGE_PROBLEMS: Final = {
    400: "bad_request",
    408: "request_timeout",
    502: "bad_gateway",
    503: "no_replica",
    504: "timeout",
}
"""What the edge answers by itself, in the same form as the API's own errors."""
PREDICT_TIMEOUT_MS: Final = 700
"""A replica that has not answered a prediction by then is asked no longer: another one is (once), with time to answer
within a second. Shorter would double the work of replicas that are merely busy, just when they are."""


@dataclass(frozen=True, slots=True)
class Program:
    """One supervised process of a member; `name` is unique in the environment."""

    name: str
    member: str
    command: tuple[str, ...]
    directory: Path
    log: Path
    environment: tuple[tuple[str, str], ...] = ()
    stop_signal: str = "TERM"
    stop_wait_s: int = 20


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
    if shard is None or member.aux_port is None:
        raise AssertionError(f"{member.name} is planned without shard or REST port")
    account.directory(member.directory / "run")
    settings = patroni.PatroniMember(
        scope=f"shard-{shard}",
        name=member.name,
        namespace=plan.patroni_namespace,
        host=LOOPBACK,
        port=member.port,
        rest_port=member.aux_port,
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
    programs = [
        _program(member, "server", (python(), "-m", "services.postgres.launcher", directory), stop_wait_s=60),
    ]
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
        programs.append(_program(member, "warden", (python(), "-m", "services.postgres.warden", str(path))))
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
        "maxmemory-policy allkeys-lru",
    ]
    account.write(path, "\n".join(lines) + "\n")
    return [_program(member, "redis", (str(REDIS), str(path)))]


def _api(plan: LocalPlan, member: MemberPlan, secrets: Secrets, account: Account) -> list[Program]:
    redis = plan.member("redis-0")
    config = {
        "environment": plan.environment,
        "replica": member.name,
        "host": LOOPBACK,
        "port": member.port,
        "agent_port": member.aux_port,
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
        "models_dir": str(plan.models_dir),
        "genmodel_jar": str(plan.genmodel_jar),
        "jvm_heap_mb": plan.topology.api.jvm_heap_mb,
        "watchdog_ms": plan.topology.api.watchdog_ms,
        "chaos": plan.topology.chaos.allows("api"),
    }
    path = member.directory / "api.json"
    account.write(path, json.dumps(config, indent=2))
    command = (python(), "-m", "services.api")
    return [_program(member, "api", command, environment=(("BREAKWATER_API_CONFIG", str(path)),))]


def _edge(plan: LocalPlan, member: MemberPlan, secrets: Secrets, account: Account) -> list[Program]:
    path = member.directory / "haproxy.cfg"
    account.write(path, edge_config(plan, member))
    # USR1 lets answers in flight finish; the supervisor kills what is left after stop_wait_s.
    command = (str(HAPROXY), "-db", "-f", str(path))
    return [_program(member, "haproxy", command, stop_signal="USR1", stop_wait_s=5)]


def edge_config(plan: LocalPlan, member: MemberPlan) -> str:
    """HAProxy: TLS 1.3 only; unanswered predictions go to another replica, nothing else is ever sent twice."""
    check = f"check inter {CHECK_INTERVAL_MS}ms fastinter {CHECK_AGAIN_MS}ms fall {CHECK_FALL} rise 1"
    replicas = [
        f"    server {replica.name} {LOOPBACK}:{replica.port} {check} agent-check agent-addr {LOOPBACK} "
        f"agent-port {replica.aux_port} agent-inter {CHECK_INTERVAL_MS}ms"
        for replica in plan.of("api")
    ]
    lines = [
        "global",
        f"    stats socket {member.directory}/admin.sock mode 600 level admin",
        "    ssl-default-bind-options ssl-min-ver TLSv1.3",
        "    maxconn 2000",
        "    # who was taken out of rotation and why; requests are counted by the API, not logged",
        "    log stdout format timed daemon notice",
        "defaults",
        "    mode http",
        "    log global",
        "    option dontlog-normal",
        "    timeout connect 500ms",
        "    timeout client 30s",
        "    timeout server 10s",
        "    timeout http-keep-alive 30s",
        "    timeout http-request 5s",
        f"    timeout check {CHECK_TIMEOUT_MS}ms",
        "    option http-keep-alive",
        "    http-reuse safe",
        *(
            f"    http-error status {status} content-type application/problem+json string {_problem(status, code)}"
            for status, code in EDGE_PROBLEMS.items()
        ),
        "frontend edge",
        f"    bind {LOOPBACK}:{member.port} ssl crt {plan.tls_dir}/edge.pem alpn h2,http/1.1",
        "    http-response set-header Strict-Transport-Security max-age=31536000",
        "    # faults are for who stands beside a replica, not for clients",
        "    http-request return status 404 content-type application/problem+json string "
        f"{_problem(404, 'not_found')} if {{ path_beg /chaos }}",
        "    # without a ready replica the replicas themselves say why; the edge only knows that there is none",
        "    use_backend predict if { path /v1/predict } { nbsrv(predict) gt 0 }",
        "    default_backend api",
        "backend predict",
        "    balance leastconn",
        "    # only a request that was there whole before it was sent on can be asked of another replica",
        "    option http-buffer-request",
        "    option httpchk GET /readyz",
        "    http-check expect status 200",
        "    retries 2",
        "    option redispatch 1",
        "    retry-on conn-failure empty-response response-timeout",
        f"    timeout server {PREDICT_TIMEOUT_MS}ms",
        *replicas,
        "backend api",
        "    balance leastconn",
        "    option httpchk GET /healthz",
        "    http-check expect status 200",
        "    retries 2",
        "    option redispatch 1",
        "    # a write that may have been received is never sent again: only connections that never opened",
        "    retry-on conn-failure",
        *replicas,
    ]
    return "\n".join(lines) + "\n"


def _problem(status: int, code: str) -> str:
    """RFC 9457, quoted for HAProxy's configuration."""
    body = {"type": "about:blank", "title": code.replace("_", " "), "status": status, "code": code}
    return "'" + json.dumps(body) + "'"


_RENDERERS: Final = {"etcd": _etcd, "postgres": _postgres, "redis": _redis, "api": _api, "edge": _edge}
