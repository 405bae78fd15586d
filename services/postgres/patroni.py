"""Renders patroni.yaml: one shard member with quorum synchronous replication, and the reason for each number."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from services.postgres.directory import MemberDirectory
from services.postgres.errors import ConfigurationInvalid

SUPERUSER = "postgres"
REPLICATION_USER = "replicator"
REWIND_USER = "rewind"
REST_USER = "patroni"

# Bounds that Patroni 4.1 silently enforces by changing other settings (patroni/config.py, patroni/validator.py):
# refused here, so that what is configured is what runs. Seconds.
MIN_TTL_S, MIN_LOOP_WAIT_S, MIN_RETRY_TIMEOUT_S = 20, 1, 3
# sockaddr_un.sun_path without its final zero, bytes: a longer path keeps Postgres from starting.
SOCKET_PATH_LIMIT = 107

ANY_ADDRESS = "0.0.0.0"  # noqa: S104 - a pod's; its NetworkPolicy says who reaches it

# WAL that a replica may lack and still be promoted, bytes. Only matters without synchronous replication.
MAX_LAG_ON_FAILOVER = 1024 * 1024
# Members of a shard plus base backups and observers.
WAL_SENDERS = 10
# A month's partitions times the tables of one statement, with room: the default 64 runs out on a full-range query.
LOCKS_PER_TRANSACTION = 256

# Parameters that must be equal on all members, so Patroni takes them from the cluster's configuration only.
SHARED_PARAMETERS: dict[str, str | int | bool] = {
    "wal_level": "replica",
    "hot_standby": True,
    "max_wal_senders": WAL_SENDERS,
    "max_replication_slots": WAL_SENDERS,
    "max_worker_processes": 8,
    "max_prepared_transactions": 0,
    "max_locks_per_transaction": LOCKS_PER_TRANSACTION,
    "wal_log_hints": True,
    "track_commit_timestamp": False,
}

PARAMETERS: dict[str, str | int | bool] = {
    # Durability is the product: nobody may turn these off for speed.
    "fsync": True,
    "full_page_writes": True,
    "synchronous_commit": True,
    # Small memory: nine servers share a laptop.
    "shared_buffers": "64MB",
    "work_mem": "4MB",
    "maintenance_work_mem": "32MB",
    "effective_cache_size": "256MB",
    # A standby that lost its primary asks again this often; with the default of 5 s the first commit on a new
    # primary, which needs a standby's acknowledgement, would wait that long.
    "wal_retrieve_retry_interval": "100ms",
    # A peer that vanished without closing its connection is noticed well before the lease ends.
    "wal_receiver_timeout": "5s",
    "wal_sender_timeout": "5s",
    "wal_receiver_status_interval": "1s",
    "hot_standby_feedback": True,
    # A member that comes back within this much WAL streams again without its slot's help ...
    "wal_keep_size": "32MB",
    # ... and one that never does cannot fill the disk.
    "max_slot_wal_keep_size": "2GB",
    # pg_rewind copies all of the new primary's pg_wal and syncs it: what is kept there for recycling is a burst of
    # writes under live traffic when a former primary comes back (337 MB once stalled its neighbours for 1.4 s).
    "min_wal_size": "48MB",
    "max_wal_size": "128MB",
    "wal_compression": "lz4",
    "checkpoint_timeout": "5min",
    # Clients that vanished are noticed, and hold no locks for long.
    "tcp_keepalives_idle": 5,
    "tcp_keepalives_interval": 2,
    "tcp_keepalives_count": 3,
    # Nothing here is a long analytical query: compiling costs more than it saves.
    "jit": False,
    "password_encryption": "scram-sha-256",
    "logging_collector": True,
    "log_filename": "postgres-%a.log",
    "log_truncate_on_rotation": True,
    "log_rotation_age": "1d",
    "log_rotation_size": 0,
    "log_file_mode": "0600",
    "log_line_prefix": "%m [%p] %q%u@%d ",
    "log_checkpoints": True,
    "log_lock_waits": True,
}


@dataclass(frozen=True, slots=True)
class PatroniPasswords:
    """Each may appear in the rendered file only, which is why that file has mode 0600."""

    superuser: str = field(repr=False)
    replication: str = field(repr=False)
    rewind: str = field(repr=False)
    rest: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """A server's certificate and key, those that it shows to etcd as a client, and the authority of them all (PEM)."""

    authority: Path
    certificate: Path
    key: Path
    client_certificate: Path
    client_key: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class PatroniMember:
    """One member. `etcd` holds host:port of every etcd server; `synchronous` False is asynchronous replication.

    Without `tls` the member listens on `host` alone and serves only clients of that address: one machine. With `tls` it
    listens on every address, speaks nothing but TLS to anybody, and its clients log in from anywhere by scram.
    """

    scope: str
    name: str
    namespace: str
    host: str
    port: int
    rest_port: int
    etcd: tuple[str, ...]
    directory: Path
    bin_dir: Path
    passwords: PatroniPasswords
    ttl_s: int
    loop_wait_s: int
    retry_timeout_s: int
    synchronous: bool
    max_connections: int
    tls: TlsFiles | None = None


def render(member: PatroniMember) -> dict[str, object]:
    """The content of patroni.yaml, plain types only; to be written with mode 0600.

    Raises ConfigurationInvalid for what Patroni or Postgres would refuse, or accept and change.
    """
    _check(member)
    directory = MemberDirectory(member.directory)
    address = f"{member.host}:{member.port}"
    rest_address = f"{member.host}:{member.rest_port}"
    return {
        "scope": member.scope,
        "namespace": member.namespace,
        "name": member.name,
        "restapi": {
            "listen": f"{ANY_ADDRESS}:{member.rest_port}" if member.tls else rest_address,
            "connect_address": rest_address,
            "authentication": {"username": REST_USER, "password": member.passwords.rest},
            **_rest_tls(member.tls),
        },
        "etcd3": {"hosts": list(member.etcd), **_etcd_tls(member.tls)},
        "bootstrap": {
            "dcs": _cluster_configuration(member),
            "initdb": [{"encoding": "UTF8"}, {"locale": "C.UTF-8"}, "data-checksums"],
        },
        "postgresql": {
            "listen": f"{ANY_ADDRESS}:{member.port}" if member.tls else address,
            "connect_address": address,
            "data_dir": str(directory.data),
            "bin_dir": str(member.bin_dir),
            "pgpass": str(directory.run / "pgpass"),
            "use_unix_socket": True,
            "use_unix_socket_repl": False,
            "authentication": {
                "superuser": {"username": SUPERUSER, "password": member.passwords.superuser, **_client_tls(member.tls)},
                "replication": {
                    "username": REPLICATION_USER,
                    "password": member.passwords.replication,
                    **_client_tls(member.tls),
                },
                "rewind": {"username": REWIND_USER, "password": member.passwords.rewind, **_client_tls(member.tls)},
            },
            "parameters": {
                **PARAMETERS,
                "unix_socket_directories": str(directory.run),
                "log_directory": str(directory.log),
                **_server_tls(member.tls),
            },
            "pg_hba": _access(member),
            "basebackup": [{"checkpoint": "fast"}],
            # Breakwater never deletes data by itself: a member that cannot follow stays down for a human to look at.
            "remove_data_directory_on_rewind_failure": False,
            "remove_data_directory_on_diverged_timelines": False,
        },
        "watchdog": {"mode": "off"},
    }


def _access(member: PatroniMember) -> list[str]:
    """pg_hba.conf: passwords by scram alone, and over a network nothing but TLS."""
    kind, clients = ("hostssl", "all") if member.tls else ("host", f"{member.host}/32")
    return [
        "local all all scram-sha-256",
        f"{kind} replication {REPLICATION_USER} {clients} scram-sha-256",
        f"{kind} all all {clients} scram-sha-256",
    ]


def _rest_tls(tls: TlsFiles | None) -> dict[str, object]:
    """Kubernetes' probes bring no certificate, so none is demanded: what changes anything needs the password."""
    if tls is None:
        return {}
    return {"certfile": str(tls.certificate), "keyfile": str(tls.key), "cafile": str(tls.authority)}


def _etcd_tls(tls: TlsFiles | None) -> dict[str, object]:
    if tls is None:
        return {}
    return {
        "protocol": "https",
        "cacert": str(tls.authority),
        "cert": str(tls.client_certificate),
        "key": str(tls.client_key),
    }


def _client_tls(tls: TlsFiles | None) -> dict[str, object]:
    """How members log in to each other."""
    return {} if tls is None else {"sslmode": "verify-full", "sslrootcert": str(tls.authority)}


def _server_tls(tls: TlsFiles | None) -> dict[str, str | bool]:
    if tls is None:
        return {}
    return {
        "ssl": True,
        "ssl_cert_file": str(tls.certificate),
        "ssl_key_file": str(tls.key),
        "ssl_ca_file": str(tls.authority),
        "ssl_min_protocol_version": "TLSv1.3",
    }


def _cluster_configuration(member: PatroniMember) -> dict[str, object]:
    """What the members of a shard share; read by Patroni only when the shard is first initialised."""
    replication: dict[str, object] = {"synchronous_mode": False}
    if member.synchronous:
        replication = {"synchronous_mode": "quorum", "synchronous_mode_strict": True, "synchronous_node_count": 1}
    return {
        "ttl": member.ttl_s,
        "loop_wait": member.loop_wait_s,
        "retry_timeout": member.retry_timeout_s,
        "maximum_lag_on_failover": MAX_LAG_ON_FAILOVER,
        # Fail over at once instead of starting a crashed primary again: its replicas are ready and it is not.
        "primary_start_timeout": 0,
        "failsafe_mode": True,
        "check_timeline": True,
        **replication,
        "postgresql": {
            "use_pg_rewind": True,
            "use_slots": True,
            "parameters": {**SHARED_PARAMETERS, "max_connections": member.max_connections},
        },
    }


def _check(member: PatroniMember) -> None:
    where = f"member {member.name} of {member.scope}"
    bounds = (
        ("ttl_s", member.ttl_s, MIN_TTL_S),
        ("loop_wait_s", member.loop_wait_s, MIN_LOOP_WAIT_S),
        ("retry_timeout_s", member.retry_timeout_s, MIN_RETRY_TIMEOUT_S),
    )
    for name, value, least in bounds:
        if value < least:
            raise ConfigurationInvalid(f"{where}: {name} is {value}, Patroni would use {least}: raise it")
    if member.loop_wait_s + 2 * member.retry_timeout_s > member.ttl_s:
        raise ConfigurationInvalid(
            f"{where}: loop_wait_s + 2 * retry_timeout_s = {member.loop_wait_s + 2 * member.retry_timeout_s} exceeds "
            f"ttl_s = {member.ttl_s}, Patroni would lower the first two: lower them or raise ttl_s"
        )
    if not member.etcd:
        raise ConfigurationInvalid(f"{where}: no etcd server named: Patroni has nowhere to keep the leader")
    socket = MemberDirectory(member.directory).run / f".s.PGSQL.{member.port}"
    if len(str(socket).encode()) > SOCKET_PATH_LIMIT:
        raise ConfigurationInvalid(
            f"{where}: the unix socket's path {socket} is longer than {SOCKET_PATH_LIMIT} bytes, Postgres would not "
            "start: keep the environment's state in a directory with a shorter name"
        )
