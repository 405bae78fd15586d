"""What the edge says of its replicas on its admin socket: who gets requests, and who left some without an answer."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from infra.local import probe

ROWS = """# pxname,svname,status,econ,eresp,wretr,wredis
predict,api-0,UP,1,0,3,2
predict,api-1,DOWN 1/2,0,0,0,0
api,api-0,UP 1/2,0,4,,
api,api-1,DOWN,0,0,1,0

"""


@pytest.fixture
def plan(tmp_path: Path) -> Iterator[Any]:
    """A plan whose edge answers every question with ROWS."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "admin.sock"))
    listener.listen()

    def answer() -> None:
        while True:
            try:
                asked, _ = listener.accept()
            except OSError:
                return
            with asked:
                asked.recv(100)
                asked.sendall(ROWS.encode())

    thread = threading.Thread(target=answer)
    thread.start()
    yield SimpleNamespace(of=lambda component: [SimpleNamespace(directory=tmp_path)])
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()


def test_a_replica_is_in_rotation_where_any_backend_sends_it_requests(plan: Any) -> None:
    assert probe.rotation(plan) == {"api-0": True, "api-1": False}


def test_what_was_left_unanswered_is_summed_over_backends_and_causes(plan: Any) -> None:
    assert probe.unanswered(plan) == {"api-0": 10, "api-1": 1}


def test_an_edge_that_is_away_tells_nothing(tmp_path: Path) -> None:
    away: Any = SimpleNamespace(of=lambda component: [SimpleNamespace(directory=tmp_path)])
    with pytest.raises(OSError, match="No such file"):
        probe.unanswered(away)
