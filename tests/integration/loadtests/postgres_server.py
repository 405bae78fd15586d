"""Small real PostgreSQL servers for tests of load and probes: to kill, to start again, to promote."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Final

import psycopg

from services.contracts.shards import HostPort, ShardEndpoints
from tests.integration.coordination.etcd_cluster import free_ports

BIN: Final = Path("/usr/lib/postgresql/15/bin")
READY_S: Final = 30
USER: Final = "breakwater_app"
DATABASE: Final = "features"


class PostgresServer:
    """One server in `directory`, as its own process group; as root it runs as Debian's user `postgres`."""

    def __init__(self, directory: Path, name: str, password: str) -> None:
        self.name = name
        [self.port] = free_ports(1)
        self.directory = directory
        self.data = directory / name
        self.password_file = directory / "password"
        self.password = password
        self._process: subprocess.Popen[bytes] | None = None

    @classmethod
    def fresh(cls, directory: Path, name: str) -> PostgresServer:
        server = cls(directory, name, secrets.token_urlsafe(16))
        server.password_file.write_text(server.password)
        _give_to_postgres(server.password_file)
        server._run("initdb", "-D", server.data, "-U", USER, "-A", "scram-sha-256", "--pwfile", server.password_file)
        return server

    def standby(self, name: str) -> PostgresServer:
        """A streaming standby of this running server, started."""
        other = PostgresServer(self.directory, name, self.password)
        source = f"host=127.0.0.1 port={self.port} user={USER} passfile={self.passfile()} application_name={name}"
        self._run("pg_basebackup", "-D", other.data, "-d", source, "-R", "-c", "fast")
        other.start()
        return other

    def passfile(self) -> Path:
        path = self.directory / "passfile"
        if not path.exists():
            path.touch(mode=0o600)
            path.write_text(f"*:*:*:{USER}:{self.password}\n")
            _give_to_postgres(path)
        return path

    def host(self) -> HostPort:
        return HostPort(name=self.name, host="127.0.0.1", port=self.port)

    def start(self) -> None:
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": "",
            "fsync": "off",
            "max_wal_senders": 4,
            "wal_level": "replica",
            "hot_standby": "on",
        }
        arguments = [word for key, value in settings.items() for word in ("-c", f"{key}={value}")]
        log = (self.directory / f"{self.name}.log").open("ab")
        self._process = subprocess.Popen(
            [BIN / "postgres", "-D", self.data, *arguments],
            stdout=log,
            stderr=log,
            user=_account(),
            process_group=0,
        )
        log.close()
        self._wait_ready()

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        """SIGKILL to the server and all its backends at once."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGKILL)
        self._kill_children_of(self._process.pid)
        self._process.wait()
        self._process = None

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(timeout=READY_S)
            self._process = None

    def promote(self) -> None:
        self._run("pg_ctl", "promote", "-D", self.data, "-w")

    def endpoints(self, shard: int, *others: PostgresServer) -> ShardEndpoints:
        hosts = (self.host(), *(other.host() for other in others))
        return ShardEndpoints(shard=shard, hosts=hosts, dbname=DATABASE, user=USER, passfile=self._own_passfile())

    def connect(self, dbname: str = DATABASE) -> psycopg.Connection:
        return psycopg.connect(
            host="127.0.0.1", port=self.port, dbname=dbname, user=USER, password=self.password, autocommit=True
        )

    def _own_passfile(self) -> Path:
        """libpq wants the file to belong to whoever reads it."""
        path = self.directory / "client.passfile"
        if not path.exists():
            path.touch(mode=0o600)
            path.write_text(f"*:*:*:{USER}:{self.password}\n")
        return path

    def _wait_ready(self) -> None:
        deadline = time.monotonic() + READY_S
        while True:
            try:
                self.connect("postgres").close()
            except psycopg.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
            else:
                return

    def _kill_children_of(self, postmaster: int) -> None:
        """Backends lead process groups of their own; each still names this data directory as its working directory."""
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and (entry / "cwd").readlink() == self.data:
                    os.kill(int(entry.name), signal.SIGKILL)
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue
        assert postmaster > 1

    def _run(self, program: str, *arguments: str | Path) -> None:
        subprocess.run([BIN / program, *arguments], check=True, capture_output=True, user=_account(), cwd="/")


def _account() -> int | None:
    return pwd.getpwnam("postgres").pw_uid if os.geteuid() == 0 else None


def _give_to_postgres(path: Path) -> None:
    if os.geteuid() == 0:
        shutil.chown(path, "postgres", "postgres")
