"""A real Redis on loopback with a password, to be killed, frozen and started again."""

from __future__ import annotations

import contextlib
import secrets
import signal
import subprocess
import time
from pathlib import Path

import redis

from tests.integration.coordination.etcd_cluster import free_ports

REDIS = "/usr/bin/redis-server"
READY_S = 10.0


class RedisServer:
    """Keeps nothing on disk but its configuration, log and password file."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        [self.port] = free_ports(1)
        self.password_file = directory / "password"
        password = secrets.token_hex(16)
        self._directory = directory
        self._config = directory / "redis.conf"
        for path, content in (
            (self.password_file, password),
            (
                self._config,
                f"bind 127.0.0.1\nport {self.port}\nrequirepass {password}\nsave ''\nappendonly no\ndir {directory}\n",
            ),
        ):
            path.touch(mode=0o600)
            path.write_text(content)
        self.client = redis.Redis(port=self.port, password=password, socket_timeout=READY_S)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns when it answers."""
        with (self._directory / "log").open("ab") as log:
            self._process = subprocess.Popen([REDIS, str(self._config)], stdout=log, stderr=log)
        self.wait_ready()

    def wait_ready(self) -> None:
        deadline = time.monotonic() + READY_S
        while True:
            with contextlib.suppress(redis.ConnectionError):
                self.client.ping()
                return
            if time.monotonic() > deadline:
                raise RuntimeError(f"Redis did not start: {(self._directory / 'log').read_text()[-500:]}")
            time.sleep(0.01)

    def kill(self) -> None:
        """SIGKILL; also ends a frozen one."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(timeout=READY_S)
            self._process = None

    def freeze(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        self.client.close()
        self.kill()
