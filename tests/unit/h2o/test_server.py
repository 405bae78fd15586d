"""What the H2O server is started with, and what it refuses before it starts."""

from __future__ import annotations

import itertools
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from services.h2o import server
from services.h2o.errors import PortInUse


def a_server(directory: Path, port: int = 54321) -> server.H2OServer:
    return server.H2OServer(directory=directory, port=port, heap_mb=512)


def test_it_listens_on_loopback_with_its_own_heap_and_directory(tmp_path: Path) -> None:
    command = a_server(tmp_path).command()
    options = dict(itertools.pairwise(command))
    assert options["-ip"] == options["-web_ip"] == "127.0.0.1"
    assert options["-port"] == "54321"
    assert options["-ice_root"] == str(tmp_path / "ice")
    assert "-Xmx512m" in command
    assert options["-flatfile"] == str(tmp_path / "flatfile")


@pytest.mark.parametrize("offset", [0, 1])
def test_a_taken_port_is_refused_before_anything_starts(tmp_path: Path, offset: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1] - offset
        with pytest.raises(PortInUse, match="choose another port"):
            server.prepare(a_server(tmp_path / "h2o", port))
    assert not (tmp_path / "h2o").exists()


def test_the_flat_file_names_every_node_of_the_cloud(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    peers = ("127.0.0.1:54321", f"127.0.0.1:{port}")
    server.prepare(replace(a_server(tmp_path, port), peers=peers))
    assert (tmp_path / "flatfile").read_text().split() == list(peers)
    server.prepare(a_server(tmp_path, port))
    assert (tmp_path / "flatfile").read_text().split() == [f"127.0.0.1:{port}"]


@pytest.mark.parametrize(
    ("arguments", "heap_mb"),
    [
        (("java", "-Xmx716m", "-jar", "h2o.jar"), 716),
        (("java", "-Xmx1g", "-Xmx2G"), 2048),
        (("python", "-m", "services.h2o.node"), None),
    ],
)
def test_the_heap_is_what_the_jvm_was_told_last(arguments: tuple[str, ...], heap_mb: int | None) -> None:
    assert server.heap_mb(arguments) == heap_mb
