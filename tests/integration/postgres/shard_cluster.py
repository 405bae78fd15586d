"""One shard for tests: real etcd, three Patroni members and their wardens as child processes on loopback."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import psutil  # type: ignore[import-untyped]
import psycopg
import urllib3
import yaml

from services.contracts.events import Event, read_events
from services.coordination.etcd import EtcdClient, KeyValue
from services.postgres import patroni
from services.postgres.directory import MemberDirectory
from tests.integration.coordination.etcd_cluster import EtcdCluster, free_ports

BIN_DIR = Path("/usr/lib/postgresql/15/bin")
SCOPE, NAMESPACE = "shard-0", "/breakwater/test/patroni/"
LEADER_KEY = f"{NAMESPACE}{SCOPE}/leader"
SYNC_KEY = f"{NAMESPACE}{SCOPE}/sync"
# How long a shard has to be whole before it counts as that, and how often Patroni is asked to look meanwhile, seconds.
WHOLE_FOR_S = 0.5
WAKE_EVERY_S = 0.3
TTL_S, LOOP_WAIT_S, RETRY_TIMEOUT_S = 20, 5, 5
FENCE_MARGIN_S = 8
MAX_CONNECTIONS = 30
# How long three members take to be ready on two slow cores, with room, seconds.
READY_S = 90.0
# A Patroni on a busy machine may take this long to answer, seconds.
REST_WITHIN_S = 3.0
HTTP_OK = 200

# As root the servers run as Debian's account, as everywhere; otherwise as whoever runs the tests.
ACCOUNT = "postgres" if os.geteuid() == 0 else None

T = TypeVar("T")


def wait_until(what: str, condition: Callable[[], T | None], timeout_s: float, *, poll_s: float = 0.02) -> T:
    """The first true thing that `condition` gives; fails naming what was waited for."""
    deadline = time.monotonic() + timeout_s
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, f"waited {timeout_s} s in vain for: {what}"
        time.sleep(poll_s)


def _kill(processes: Iterable[psutil.Process]) -> None:
    """SIGKILL; who saw its postmaster go may have ended by itself."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()


class Member:
    """One member: its directory, and its server and warden as processes of their own."""

    def __init__(self, number: int, root: Path, ports: tuple[int, int]) -> None:
        self.name = f"{SCOPE}-{number}"
        self.port, self.rest_port = ports
        self.directory = MemberDirectory(root / self.name)
        self.key = f"{NAMESPACE}{SCOPE}/members/{self.name}"
        self.server: subprocess.Popen[bytes] | None = None
        self.warden: subprocess.Popen[bytes] | None = None
        self._warden_began_ns = 0

    def start_server(self) -> None:
        self.server = self._start("server", "services.postgres.launcher", self.directory.root)

    def start_warden(self) -> None:
        """Start it and wait until it watches."""
        self._warden_began_ns = time.monotonic_ns()
        self.warden = self._start("warden", "services.postgres.warden", self.directory.root / "warden.json")
        wait_until(f"{self.name}'s warden watches", lambda: self.events("watching", self._warden_began_ns), 15)

    def is_known(self, leader: KeyValue) -> bool:
        """Whether its warden saw the Patroni that runs now alive and, if it leads, its leader key as it is now."""
        met = self.events("patroni_seen", self._warden_began_ns)
        if self.server is None or not met or met[-1].data["pid"] != self.server.pid:
            return False
        keys = [event.data["mod_revision"] for event in self.events("leader_seen", met[-1].t_ns)]
        return leader.value != self.name or keys[-1:] == [leader.mod_revision]

    def stop_warden(self) -> None:
        """SIGKILL: a warden has nothing to put in order."""
        if self.warden is not None:
            self.warden.kill()
            self.warden.wait(timeout=10)
            self.warden = None

    def postmaster(self) -> psutil.Process | None:
        """The running postmaster, by the pid file that Postgres keeps."""
        try:
            process = psutil.Process(int((self.directory.data / "postmaster.pid").read_text().split("\n", 1)[0]))
            return process if process.name() == "postgres" else None
        except (OSError, ValueError, psutil.Error):
            return None

    def postgres_processes(self) -> list[psutil.Process]:
        """Postmaster first, then all that it started."""
        postmaster = self.postmaster()
        try:
            return [] if postmaster is None else [postmaster, *postmaster.children(recursive=True)]
        except psutil.NoSuchProcess:  # it has just ended, and what it started ends with it
            return []

    def signal_server(self, number: signal.Signals) -> None:
        """Signal Patroni and every Postgres process, Patroni first."""
        assert self.server is not None
        self.server.send_signal(number)
        for process in self.postgres_processes():
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    def kill_server(self) -> int:
        """SIGKILL Patroni and every Postgres process; returns the monotonic time of the first signal, ns."""
        assert self.server is not None
        victims = self.postgres_processes()
        killed_ns = time.monotonic_ns()
        self.server.kill()
        _kill(victims)
        self.reap_server()
        return killed_ns

    def kill_postgres(self) -> int:
        """SIGKILL every Postgres process under a Patroni that lives on; returns the monotonic time before, ns."""
        victims = self.postgres_processes()
        killed_ns = time.monotonic_ns()
        _kill(victims)
        return killed_ns

    def reap_server(self) -> None:
        if self.server is not None:
            self.server.wait(timeout=10)
            self.server = None

    def events(self, kind: str | None = None, since_ns: int = 0) -> list[Event]:
        """What this member's wardens wrote since then, all or of one kind."""
        if not self.directory.warden_events.exists():
            return []
        return [
            event
            for event in read_events(self.directory.warden_events)
            if event.t_ns >= since_ns and kind in (None, event.kind)
        ]

    def rest(self, path: str) -> tuple[int, Any]:
        """Status and body of Patroni's REST API; (0, None) when it does not answer in time."""
        try:
            response = urllib3.request(
                "GET", f"http://127.0.0.1:{self.rest_port}{path}", timeout=REST_WITHIN_S, retries=False
            )
            return response.status, response.json() if response.data else None
        except (urllib3.exceptions.HTTPError, ValueError):
            return 0, None

    def in_failsafe(self) -> bool:
        """Whether this member still takes part in no election, because failsafe mode was active within the ttl."""
        return bool((self.rest("/patroni")[1] or {}).get("failsafe_mode_is_active", False))

    def _start(self, role: str, module: str, argument: Path) -> subprocess.Popen[bytes]:
        with (self.directory.root / f"{role}.out").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", module, str(argument)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory.root,
                user=ACCOUNT,
                group=ACCOUNT,
                extra_groups=[] if ACCOUNT else None,
            )


class ShardCluster:
    """Three members over `etcd_size` etcd servers, in a directory of its own that is kept when a test fails."""

    def __init__(self, *, etcd_size: int = 1, synchronous: bool = True) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="bw-shard-"))
        self.root.chmod(0o755)
        self.keep = False
        self.etcd_servers = EtcdCluster(self.root, etcd_size)
        self.etcd = EtcdClient(self.etcd_servers.clients, timeout_s=2.0)
        self._password = secrets.token_hex(16)
        ports = free_ports(6)
        self.members = [Member(i, self.root, (ports[2 * i], ports[2 * i + 1])) for i in range(3)]
        self.passfile = self.root / "pgpass"
        for member in self.members:
            self._configure(member, synchronous)
        self._write(self.passfile, f"*:*:*:{patroni.SUPERUSER}:{self._password}\n")

    def __enter__(self) -> Self:
        try:
            self.etcd_servers.__enter__()
            for member in self.members:
                member.start_server()
            with self.connect(self.wait_healthy()) as connection:
                connection.execute("create table written (id bigint primary key)")
        except BaseException as error:
            self.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for member in self.members:
            member.stop_warden()
            if member.server is not None:
                member.signal_server(signal.SIGCONT)
                member.kill_server()
            member.kill_postgres()
        self.etcd_servers.__exit__(kind, error, trace)
        self.etcd.close()
        if error is None and not self.keep:
            shutil.rmtree(self.root)

    def start_wardens(self) -> None:
        """Start those that do not run; returns once each knows its member, so that it can judge its death."""
        for member in self.members:
            if member.warden is None:
                member.start_warden()

        def known() -> bool:
            leader = self.leader()
            return leader is not None and all(member.is_known(leader) for member in self.members)

        wait_until("every warden knows its member", known, 15)

    def stop_wardens(self) -> None:
        for member in self.members:
            member.stop_warden()

    def leader(self) -> KeyValue | None:
        return self.etcd.get(LEADER_KEY)

    def primary(self) -> Member:
        """The member that holds the leader key and says that it is primary."""

        def found() -> Member | None:
            leader = self.leader()
            for member in self.members:
                if leader is not None and member.name == leader.value and member.rest("/primary")[0] == HTTP_OK:
                    return member
            return None

        return wait_until("a primary", found, READY_S, poll_s=0.1)

    def replicas(self) -> list[Member]:
        primary = self.primary()
        return [member for member in self.members if member is not primary]

    def wait_healthy(self) -> Member:
        """Wait for a primary with two streaming standbys that may acknowledge and be promoted; returns the primary.

        For a while: just after a failover Patroni keeps the old primary's list for a moment and then takes out
        whoever did not stream yet, and a primary with one listed standby cannot lose another member.
        """
        whole_since_s: float | None = None
        woken_s = -WAKE_EVERY_S

        def settled() -> Member | None:
            nonlocal whole_since_s, woken_s
            primary, now_s = self.primary(), time.monotonic()
            if self._is_complete(primary):
                whole_since_s = whole_since_s or now_s
                return primary if now_s - whole_since_s >= WHOLE_FOR_S else None
            whole_since_s = None
            if now_s - woken_s >= WAKE_EVERY_S:
                self.wake()
                woken_s = now_s
            return None

        return wait_until("a primary with two quorum standbys", settled, READY_S, poll_s=0.1)

    def _is_complete(self, primary: Member) -> bool:
        """Both standbys stream and count for the quorum, for Postgres and for Patroni, and no failsafe is in force."""
        replication = (primary.rest("/patroni")[1] or {}).get("replication", ())
        if [(r.get("state"), r.get("sync_state")) for r in replication] != [("streaming", "quorum")] * 2:
            return False
        found = self.etcd.get(SYNC_KEY)
        listed = json.loads(found.value) if found is not None else {}
        others = {member.name for member in self.members} - {primary.name}
        return (
            listed.get("leader") == primary.name
            and set(str(listed.get("sync_standby", "")).split(",")) == others
            and not any(member.in_failsafe() for member in self.members)
        )

    def patch_configuration(self, member: Member, change: dict[str, object]) -> None:
        """Change the shard's dynamic configuration through a member's Patroni; None removes a setting."""
        response = urllib3.request(
            "PATCH",
            f"http://127.0.0.1:{member.rest_port}/config",
            body=json.dumps(change).encode(),
            headers=urllib3.make_headers(basic_auth=f"{patroni.REST_USER}:{self._password}"),
            timeout=5.0,
            retries=False,
        )
        assert response.status == HTTP_OK, response.data

    def wake(self) -> None:
        """Have every Patroni look now instead of at its next loop: setting what is set already changes nothing else."""
        for member in self.members:
            with suppress(urllib3.exceptions.HTTPError, AssertionError):
                self.patch_configuration(member, {"ttl": TTL_S})

    def repair(self) -> Member:
        """Bring everything up again after a case: servers running and thawed, replication healthy."""
        for member in self.members:
            if member.server is not None and member.server.poll() is not None:
                member.reap_server()
            if member.server is None:
                member.start_server()
        return self.wait_healthy()

    def conninfo(self, *members: Member, read_write: bool = True) -> str:
        return psycopg.conninfo.make_conninfo(
            host=",".join("127.0.0.1" for _ in members),
            port=",".join(str(member.port) for member in members),
            user=patroni.SUPERUSER,
            dbname="postgres",
            passfile=str(self.passfile),
            connect_timeout=2,
            target_session_attrs="read-write" if read_write else "any",
        )

    def connect(self, *members: Member, read_write: bool = True) -> psycopg.Connection[tuple[Any, ...]]:
        return psycopg.connect(self.conninfo(*members, read_write=read_write), autocommit=True)

    def _configure(self, member: Member, synchronous: bool) -> None:
        root = member.directory.root
        root.mkdir()
        settings = patroni.PatroniMember(
            scope=SCOPE,
            name=member.name,
            namespace=NAMESPACE,
            host="127.0.0.1",
            port=member.port,
            rest_port=member.rest_port,
            etcd=tuple(url.removeprefix("http://") for url in self.etcd_servers.clients),
            directory=root,
            bin_dir=BIN_DIR,
            passwords=patroni.PatroniPasswords(*[self._password] * 4),
            ttl_s=TTL_S,
            loop_wait_s=LOOP_WAIT_S,
            retry_timeout_s=RETRY_TIMEOUT_S,
            synchronous=synchronous,
            max_connections=MAX_CONNECTIONS,
        )
        warden = {
            "member": member.name,
            "scope": SCOPE,
            "namespace": NAMESPACE,
            "etcd": self.etcd_servers.clients,
            "rest_url": f"http://127.0.0.1:{member.rest_port}",
            "ttl_s": TTL_S,
            "fence_margin_s": FENCE_MARGIN_S,
            "directory": str(root),
        }
        self._write(member.directory.patroni_config, yaml.safe_dump(patroni.render(settings)))
        self._write(root / "warden.json", json.dumps(warden))
        if ACCOUNT is not None:
            shutil.chown(root, ACCOUNT, ACCOUNT)
            for path in root.iterdir():
                shutil.chown(path, ACCOUNT, ACCOUNT)

    @staticmethod
    def _write(path: Path, content: str) -> None:
        path.touch(mode=0o600)
        path.write_text(content)
