"""supervisord of one environment: its configuration, and a typed client for its XML-RPC socket."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import time
import xmlrpc.client
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from supervisor.xmlrpc import Faults, SupervisorTransport, UnixStreamHTTPConnection

from infra.environment import EnvironmentFault
from infra.local import processes
from infra.local.account import Account
from infra.local.plan import LocalPlan
from infra.local.servers import Program, python

START_S: Final = 10.0
"""supervisord answers within a fraction of a second; longer means that it failed."""
CALL_S: Final = 10.0
"""One request over the socket takes milliseconds; longer means that supervisord itself is stopped or hangs."""
STOP_S: Final = 90.0
"""Postgres writes a checkpoint when it stops; supervisord kills what outlasts each program's own stopwaitsecs."""
START_RETRIES: Final = 30
"""A program that dies within a second so often is broken, not unlucky; supervisord waits longer after each try."""
LOG_BYTES: Final = "10MB"
SOCKET_PATH_MAX: Final = 100
"""sun_path holds 108 bytes; supervisord and Postgres add a few characters to what we name."""

SETPRIV: Final = "/usr/bin/setpriv"
"""Of util-linux, which every Debian has."""

RUNNING: Final = "RUNNING"


class SupervisorDown(EnvironmentFault):
    """No supervisord answers for this environment."""


@dataclass(frozen=True, slots=True)
class ProgramState:
    name: str
    member: str
    state: str
    pid: int | None


def configuration(plan: LocalPlan, programs: Sequence[Program], account: Account) -> str:
    """supervisord.conf. Programs start when asked, not by themselves: `up` brings them up in order."""
    directory = plan.supervisor_dir
    lines = [
        "[unix_http_server]",
        f"file={_escape(directory / 'supervisor.sock')}",
        "chmod=0600",
        "[rpcinterface:supervisor]",
        "supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface",
        "[supervisord]",
        f"logfile={_escape(directory / 'supervisord.log')}",
        f"logfile_maxbytes={LOG_BYTES}",
        f"pidfile={_escape(directory / 'supervisord.pid')}",
        f"childlogdir={_escape(directory)}",
        f"directory={_escape(directory)}",
        "umask=077",
    ]
    as_root = os.geteuid() == 0
    if as_root:
        lines.append("user=root")
    for program in programs:
        environment = {
            "HOME": str(program.directory),
            "LANG": "C.UTF-8",
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "PYTHONUNBUFFERED": "1",
            **dict(program.environment),
        }
        lines += [
            f"[program:{program.name}]",
            "command=" + " ".join(_quote(word) for word in _as_member(program, account, as_root)),
            f"directory={_escape(program.directory)}",
            "environment=" + ",".join(f'{key}="{_escape(value)}"' for key, value in environment.items()),
            # supervisord expands this one twice
            f"stdout_logfile={_escape(_escape(program.log))}",
            f"stdout_logfile_maxbytes={LOG_BYTES}",
            "redirect_stderr=true",
            "autostart=false",
            "autorestart=true",
            "startsecs=1",
            f"startretries={START_RETRIES}",
            f"stopsignal={program.stop_signal}",
            f"stopwaitsecs={program.stop_wait_s}",
        ]
        if as_root and program.group is None:
            lines.append(f"user={account.name}")
    members: dict[str, list[str]] = {}
    for program in programs:
        members.setdefault(program.member, []).append(program.name)
    for member, names in members.items():
        lines += [f"[group:{member}]", f"programs={','.join(names)}"]
    return "\n".join(lines) + "\n"


def _as_member(program: Program, account: Account, as_root: bool) -> tuple[str, ...]:
    """The command; with a group of its own it takes user and group itself, for supervisord knows only a user's own."""
    if not as_root or program.group is None:
        return program.command
    ids = ("--reuid", str(account.uid), "--regid", str(program.group), "--clear-groups")
    return SETPRIV, *ids, "--", *program.command


def _escape(value: object) -> str:
    return str(value).replace("%", "%%")


def _quote(word: str) -> str:
    return '"' + _escape(word).replace("\\", "\\\\").replace('"', '\\"') + '"'


class _Connection(UnixStreamHTTPConnection):  # type: ignore[misc]
    """HTTP over supervisord's socket, with the time limit that the library's own class lacks."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(CALL_S)
        self.sock.connect(str(self._path))


class _Transport(SupervisorTransport):  # type: ignore[misc]
    def __init__(self, path: Path) -> None:
        super().__init__(None, None, f"unix://{path}")
        self._get_connection = lambda: _Connection(path)


class Supervisor:
    """Client of one environment's supervisord. Calls raise SupervisorDown when it does not answer."""

    def __init__(self, plan: LocalPlan) -> None:
        self._environment = plan.environment
        self._socket = plan.supervisor_dir / "supervisor.sock"
        self._config = plan.supervisor_dir / "supervisord.conf"
        self._pidfile = plan.supervisor_dir / "supervisord.pid"

    @property
    def config(self) -> Path:
        return self._config

    def is_up(self) -> bool:
        try:
            self._call("supervisor.getState")
        except SupervisorDown:
            return False
        return True

    def pid(self) -> int:
        return int(cast(int, self._call("supervisor.getPID")))

    def launch(self) -> None:
        """Start supervisord as a daemon with a clean environment: nothing of the caller's shell leaks into servers."""
        command = [python(), "-P", "-m", "infra.local.supervise", "-c", str(self._config)]
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
        try:
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, timeout=START_S, check=False
            )
        except FileNotFoundError as error:
            raise EnvironmentFault(f"{command[0]} is not installed; run `make install`") from error
        except subprocess.TimeoutExpired as error:
            raise EnvironmentFault(
                f"supervisord did not start within {START_S:.0f} s; see {self._config.parent}/supervisord.log"
            ) from error
        if done.returncode != 0:
            said = " ".join((done.stderr.strip() or done.stdout).split())
            raise EnvironmentFault(f"supervisord did not start with {self._config}: {said}")
        end = time.monotonic() + START_S
        while not self.is_up():
            if time.monotonic() > end:
                raise EnvironmentFault(
                    f"supervisord does not answer on {self._socket}; see {self._config.parent}/supervisord.log"
                )
            time.sleep(0.02)

    def states(self) -> dict[str, ProgramState]:
        """Every program's state by its name."""
        infos = cast(list[dict[str, Any]], self._call("supervisor.getAllProcessInfo"))
        return {
            info["name"]: ProgramState(info["name"], info["group"], info["statename"], info["pid"] or None)
            for info in infos
        }

    def start(self, programs: Iterable[ProgramState | Program]) -> None:
        """Start those that do not run; returns once they are spawned (ready is asked of the servers themselves)."""
        states = self.states()
        for program in programs:
            if states[program.name].state not in {RUNNING, "STARTING"}:
                self._call(
                    "supervisor.startProcess", f"{program.member}:{program.name}", False, fine=Faults.ALREADY_STARTED
                )

    def stop(self, programs: Iterable[ProgramState]) -> None:
        """Stop all of them at once and wait until each is down."""
        asked = [p for p in programs if p.state in {RUNNING, "STARTING", "BACKOFF", "STOPPING"}]
        for program in asked:
            if program.state != "STOPPING":
                self._call("supervisor.stopProcess", f"{program.member}:{program.name}", False, fine=Faults.NOT_RUNNING)
        end = time.monotonic() + STOP_S
        names = {p.name for p in asked}
        while any(state.state == "STOPPING" for name, state in self.states().items() if name in names):
            if time.monotonic() > end:
                raise EnvironmentFault(f"these did not stop within {STOP_S:.0f} s: {', '.join(sorted(names))}")
            time.sleep(0.05)

    def take_again(self, member: str) -> None:
        """Have a stopped member's programs run from now on as the configuration on disk says."""
        self._call("supervisor.reloadConfig")
        self._call("supervisor.removeProcessGroup", member)
        self._call("supervisor.addProcessGroup", member)

    def shutdown(self) -> None:
        """End supervisord and whatever it still runs; waits for its process to be gone."""
        process = processes.read(self.pid())
        self._call("supervisor.shutdown")
        # Gone by identity: where nobody reaps orphans, as in many containers, its pid stays for ever.
        if process is not None and processes.wait_gone([process.id], timeout_s=STOP_S):
            raise EnvironmentFault(
                f"supervisord (pid {process.pid}) did not end within {STOP_S:.0f} s; end it by hand, then run "
                f"`breakwater down {self._environment}` again"
            )

    def _call(self, method: str, *arguments: object, fine: int | None = None) -> object:
        """One request; a fault with the code `fine` (what was asked for is so already) counts as done."""
        proxy = xmlrpc.client.ServerProxy("http://127.0.0.1", transport=_Transport(self._socket))
        try:
            return cast(object, getattr(proxy, method)(*arguments))
        except (OSError, http.client.HTTPException) as error:
            raise SupervisorDown(
                f"{self._environment} is not up: no supervisord answers on {self._socket} ({error}); "
                f"run `breakwater up {self._environment}`"
            ) from error
        except xmlrpc.client.ProtocolError as error:
            raise EnvironmentFault(
                f"supervisord failed at {method}: {error.errcode} {error.errmsg}; see supervisord.log in "
                f"{self._config.parent}"
            ) from error
        except xmlrpc.client.Fault as fault:
            if fault.faultCode == fine:
                return None
            raise EnvironmentFault(f"supervisord refused {method}{arguments}: {fault.faultString}") from fault
        finally:
            proxy("close")()
