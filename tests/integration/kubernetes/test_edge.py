"""The rendered edge under a real HAProxy and a name server of the test's: when it calls itself ready."""

from __future__ import annotations

import datetime
import http.client
import re
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from infra.certificates import Subject, issue, make_authority
from infra.kubernetes.edge import EdgeConfig
from infra.kubernetes.plan import EDGE, EDGE_HEALTH
from tests.integration.coordination.etcd_cluster import free_ports
from tests.unit.infra.kubernetes.pods import plan

REPLICA = "127.0.0.9"
"""Where nobody listens: an address is all that is asked of it."""
PATIENCE_S = 15.0


@pytest.fixture
def ports() -> list[int]:
    return free_ports(3)


@pytest.fixture
def edge(ports: list[int], tmp_path: Path) -> Iterator[Callable[[], int]]:
    """Answers with the status of the edge's health, asked now."""
    https, health, names = ports
    now = datetime.datetime.now(datetime.UTC)
    (tmp_path / "edge.pem").write_bytes(b"".join(issue(make_authority("ca", now), Subject("edge", ["edge"]), now, 1)))
    text = EdgeConfig.of(plan()).file().replace("/run/tls", str(tmp_path))
    text = text.replace(f"bind :{EDGE} ", f"bind 127.0.0.1:{https} ")
    text = text.replace(f"bind :{EDGE_HEALTH}", f"bind 127.0.0.1:{health}")
    text = re.sub(r"parse-resolv-conf", f"nameserver own 127.0.0.1:{names}", text)
    (tmp_path / "haproxy.cfg").write_text(text)
    process = subprocess.Popen(
        ["/usr/sbin/haproxy", "-db", "-f", str(tmp_path / "haproxy.cfg")],
        stdout=subprocess.DEVNULL,
        stderr=(tmp_path / "log").open("w"),
    )

    def ask() -> int:
        connection = http.client.HTTPConnection("127.0.0.1", health, timeout=2)
        try:
            connection.request("GET", "/healthz")
            return connection.getresponse().status
        except ConnectionRefusedError:
            assert process.poll() is None, (tmp_path / "log").read_text()
            return 0
        finally:
            connection.close()

    yield ask
    process.terminate()
    process.wait(timeout=10)


@contextmanager
def names(port: int) -> Iterator[None]:
    """A name server that knows one address, for every name."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", port))
        server.settimeout(0.2)
        over = threading.Event()
        thread = threading.Thread(target=_answer, args=(server, over))
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


def _answer(server: socket.socket, over: threading.Event) -> None:
    while not over.is_set():
        try:
            asked, sender = server.recvfrom(4096)
        except TimeoutError:
            continue
        end = asked.index(b"\0", 12) + 5  # the name, its end, type and class
        (kind,) = struct.unpack(">H", asked[end - 4 : end - 2])
        records = [b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 5, 4) + socket.inet_aton(REPLICA)] if kind == 1 else []
        head = asked[:2] + struct.pack(">HHHHH", 0x8580, 1, len(records), 0, 0)
        server.sendto(head + asked[12:end] + b"".join(records), sender)


def within(seconds: float, look: Callable[[], bool]) -> bool:
    end = time.monotonic() + seconds
    while not (found := look()) and time.monotonic() < end:
        time.sleep(0.1)
    return found


def test_an_edge_is_ready_once_it_knows_a_replica_and_stays_so_without_names(
    edge: Callable[[], int], ports: list[int]
) -> None:
    """New pods of the edge took clients in their first second and answered 503, not knowing whom to ask."""
    assert within(PATIENCE_S, lambda: edge() == 503), "it calls itself ready and knows nobody"
    with names(ports[2]):
        assert within(PATIENCE_S, lambda: edge() == 200)
    assert not within(3.0, lambda: edge() != 200), "names are away: what it knows stays true"
