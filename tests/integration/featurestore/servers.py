"""Plain PostgreSQL servers for the feature store's tests: shards without Patroni, to be killed, frozen and followed."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

import psycopg

from services.contracts.shards import HostPort, ShardEndpoints
from tests.integration.coordination.etcd_cluster import free_ports

BIN: Final = Path("/usr/lib/postgresql/15/bin")
APP: Final = "breakwater_app"
READY_S: Final = 30.0
SETTINGS: Final = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "shared_buffers": "32MB",
    "max_connections": "40",
    "fsync": "off",  # a killed server loses nothing without it, only a killed machine would
    "wal_receiver_timeout": "5s",
    "wal_retrieve_retry_interval": "100ms",
}


class Postgres:
    """One server with a superuser `postgres` and the application's ordinary role. As root it runs as user postgres."""

    def __init__(self, home: Path, name: str, password: str) -> None:
        self.name = name
        self.password = password
        self.home = home
        self.data = home / name
        self.passfile = home / "passfile"
        [self.port] = free_ports(1)
        self._process: subprocess.Popen[bytes] | None = None

    @classmethod
    def create(cls, name: str) -> Postgres:
        """A new, running server in a directory of its own; `destroy` removes it."""
        home = Path(tempfile.mkdtemp(prefix="breakwater-postgres-"))
        home.chmod(0o711)
        server = cls(home, name, secrets.token_hex(16))
        server._secret(home / "password", server.password)
        server._secret(server.passfile, f"*:*:*:*:{server.password}\n", own=True)
        _give(home)
        server._run(
            *("initdb", "--auth", "scram-sha-256", "--username", "postgres", "--no-sync", "--encoding", "UTF8"),
            *("--pwfile", str(home / "password"), "--pgdata", str(server.data)),
        )
        server.start()
        server.make_role()
        return server

    def make_role(self) -> None:
        """The application's role, as services/featurestore/provision.py makes it."""
        with self.superuser() as connection:
            connection.execute(f"create role {APP} login password '{self.password}'")
            connection.execute(f"grant pg_monitor, pg_checkpoint to {APP}")

    def follow(self, name: str) -> Postgres:
        """A new, running standby of this server."""
        standby = Postgres(self.home, name, self.password)
        servers_passfile = self.home / "replication.passfile"
        self._secret(servers_passfile, f"*:*:*:*:{self.password}\n")
        source = f"host=127.0.0.1 port={self.port} user=postgres passfile={servers_passfile} application_name={name}"
        self._run(
            *("pg_basebackup", "--write-recovery-conf", "--checkpoint", "fast", "--no-sync"),
            *("--pgdata", str(standby.data), "--dbname", source),
        )
        standby.start()
        return standby

    def start(self) -> None:
        settings = [word for key, value in SETTINGS.items() for word in ("-c", f"{key}={value}")]
        with (self.home / f"{self.name}.log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(BIN / "postgres"), "-D", str(self.data), "-p", str(self.port), *settings],
                stdout=log, stderr=log, cwd="/", user=_account(), extra_groups=[] if _account() else None,
            )  # fmt: skip
        self.wait_ready()

    def wait_ready(self) -> None:
        deadline = time.monotonic() + READY_S
        while True:
            try:
                self.superuser().close()
            except psycopg.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
            else:
                return

    def kill(self) -> None:
        """SIGKILL to the postmaster and every backend; returns when all are gone."""
        self._signal_all(signal.SIGKILL)
        if self._process is not None:
            self._process.wait(timeout=READY_S)
            self._process = None

    def freeze(self) -> None:
        self._signal_all(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal_all(signal.SIGCONT)

    def promote(self) -> None:
        self._run("pg_ctl", "promote", "--wait", "--pgdata", str(self.data))

    def destroy(self) -> None:
        """Kill the server and remove its directory, which those that follow it share: kill them first."""
        if self._process is not None:
            self.kill()
        shutil.rmtree(self.home, ignore_errors=True)

    def superuser(self, database: str = "postgres") -> psycopg.Connection:
        return psycopg.connect(
            host="127.0.0.1", port=self.port, user="postgres", password=self.password, dbname=database, autocommit=True
        )

    def create_database(self, name: str, template: str = "template1") -> None:
        with self.superuser() as connection:
            connection.execute(f"create database {name} owner {APP} template {template}")

    def endpoints(self, shard: int, database: str, *others: Postgres) -> ShardEndpoints:
        hosts = tuple(HostPort(name=each.name, host="127.0.0.1", port=each.port) for each in (self, *others))
        return ShardEndpoints(shard=shard, hosts=hosts, dbname=database, user=APP, passfile=self.passfile)

    def _signal_all(self, number: signal.Signals) -> None:
        # Every process of a server works in its data directory; backends lead process groups of their own.
        for entry in Path("/proc").iterdir():
            with suppress(OSError):
                if entry.name.isdigit() and (entry / "cwd").readlink() == self.data:
                    os.kill(int(entry.name), number)

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [str(BIN / program), *arguments], check=False, capture_output=True, cwd="/", user=_account(), timeout=60
        )
        if done.returncode:
            raise RuntimeError(f"{program} failed: {done.stderr.decode()}")

    def _secret(self, path: Path, content: str, *, own: bool = False) -> None:
        path.touch(mode=0o600)
        path.write_text(content)
        if not own:
            _give(path)


def _account() -> int | None:
    return pwd.getpwnam("postgres").pw_uid if os.geteuid() == 0 else None


def _give(path: Path) -> None:
    if os.geteuid() == 0:
        shutil.chown(path, "postgres", "postgres")
