"""One H2O node's process: what it is started from, what it needs on disk, and what it must find free.

H2O has no log-in here and runs what its clients ask for, so locally it listens on 127.0.0.1 only.
"""

from __future__ import annotations

import re
import shutil
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from services.h2o import encryption
from services.h2o.encryption import Certificates
from services.h2o.errors import PortInUse
from services.h2o.genmodel import server_jar

LOOPBACK = "127.0.0.1"
PORTS_USED = 2
"""H2O serves REST on its port and talks to its peers on the next one."""

LOG_TAIL_BYTES = 2000
"""How much of the log a failure message quotes."""

_HEAP = re.compile(r"-Xmx(\d+)([mMgG])")


@dataclass(frozen=True, slots=True, kw_only=True)
class H2OServer:
    """What one server is started from. `directory` is its own: data, temporary files, log.

    `peers` are the cloud's nodes as host:port, this one included; none means a cloud of its own. With `certificates` it
    speaks TLS only, with its clients and with its peers.
    """

    directory: Path
    port: int
    heap_mb: int
    threads: int = 2
    cloud: str = "bw-0"
    host: str = LOOPBACK
    peers: tuple[str, ...] = ()
    certificates: Certificates | None = None

    @property
    def url(self) -> str:
        return f"{encryption.scheme(self.certificates)}://{self.host}:{self.port}"

    @property
    def log(self) -> Path:
        return self.directory / "log" / "h2o.log"

    def command(self) -> list[str]:
        """The process to run. The flat file keeps it from looking for peers by multicast."""
        return [
            shutil.which("java") or "java",
            f"-Xmx{self.heap_mb}m",
            f"-Djava.io.tmpdir={self.directory / 'tmp'}",
            "-Dsys.ai.h2o.ext.core.toggle.XGBoost=False",  # unpacks native code that nothing here uses
            "-jar",
            str(server_jar()),
            *("-ip", self.host),
            *("-web_ip", self.host),
            *("-port", str(self.port)),
            *("-name", self.cloud),
            *("-flatfile", str(self.directory / "flatfile")),
            *("-ice_root", str(self.directory / "ice")),
            *("-nthreads", str(self.threads)),
            *(encryption.options(self.directory) if self.certificates is not None else ()),
        ]


def heap_mb(arguments: Iterable[str]) -> int | None:
    """Of a JVM's arguments; the last -Xmx counts, as for the JVM. None when they name none in whole MB."""
    sizes = [match for argument in arguments if (match := _HEAP.fullmatch(argument))]
    return int(sizes[-1][1]) * (1024 if sizes[-1][2] in "gG" else 1) if sizes else None


def prepare(server: H2OServer) -> None:
    """Make what the process needs on disk.

    Raises PortInUse when it could not listen, ConfigurationInvalid when its certificates cannot be used.
    """
    _refuse_taken_ports(server)
    for name in ("tmp", "ice", "log"):
        (server.directory / name).mkdir(parents=True, exist_ok=True)
    peers = server.peers or (f"{server.host}:{server.port}",)
    (server.directory / "flatfile").write_text("".join(f"{peer}\n" for peer in peers))
    if server.certificates is not None:
        encryption.write_stores(server.certificates, server.directory)


def _refuse_taken_ports(server: H2OServer) -> None:
    port = server.port
    for number in range(port, port + PORTS_USED):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port in TIME_WAIT is free
            try:
                probe.bind((server.host, number))
            except OSError as error:
                raise PortInUse(
                    f"H2O needs ports {port} and {port + 1} on {server.host}; {number} is taken ({error.strerror}): "
                    "choose another port or end what listens there"
                ) from error


def log_tail(server: H2OServer) -> str:
    """The end of its log, for a message."""
    return server.log.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace")
