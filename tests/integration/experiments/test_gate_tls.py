"""The gate's handshakes against real TLS servers: one that takes 1.3 alone, a lenient one, and none at all."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from experiments.gate.collect.handshake import handshakes
from experiments.gate.facts import Answer
from infra.environment import Edge
from tests.integration.loadtests.tls_edge import NAME, make_certificates

pytestmark = pytest.mark.integration


@contextlib.contextmanager
def listening(context: ssl.SSLContext | None) -> Iterator[int]:
    """A server that does one handshake for each connection; without a context it closes what it accepts."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    plain, _ = server.accept()
                except OSError:
                    return
                with plain, contextlib.suppress(OSError):
                    if context is not None:
                        context.wrap_socket(plain, server_side=True).close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join(5)


def server_context(directory: Path, least: ssl.TLSVersion) -> tuple[ssl.SSLContext, Path]:
    ca_file, server_file = make_certificates(directory)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(server_file)
    context.minimum_version = least
    return context, ca_file


def edge(port: int, ca_file: Path, name: str | None = None) -> Edge:
    return Edge(f"https://127.0.0.1:{port}", ca_file, name)


@pytest.mark.parametrize(
    ("least", "old"), [(ssl.TLSVersion.TLSv1_3, Answer.REFUSED), (ssl.TLSVersion.TLSv1_2, Answer.ACCEPTED)]
)
def test_what_the_server_takes_is_what_is_said(tmp_path: Path, least: ssl.TLSVersion, old: Answer) -> None:
    context, ca_file = server_context(tmp_path, least)
    with listening(context) as port:
        new_shake, old_shake = handshakes(edge(port, ca_file))
    assert (new_shake.offered, new_shake.answer, new_shake.said) == ("1.3", Answer.ACCEPTED, "TLSv1.3")
    assert (old_shake.offered, old_shake.answer) == ("1.2", old)


def test_an_edge_that_is_reached_by_its_address_proves_its_name(tmp_path: Path) -> None:
    context, ca_file = server_context(tmp_path, ssl.TLSVersion.TLSv1_3)
    with listening(context) as port:
        named, _ = handshakes(edge(port, ca_file, NAME))
        other, _ = handshakes(edge(port, ca_file, "another.example.org"))
    assert named.answer is Answer.ACCEPTED
    assert other.answer is Answer.NONE
    assert "certificate refused" in other.said


def test_an_old_version_is_found_out_behind_a_strange_certificate(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    context, _ = server_context(tmp_path / "a", ssl.TLSVersion.TLSv1_2)
    _, strange_ca = server_context(tmp_path / "b", ssl.TLSVersion.TLSv1_2)
    with listening(context) as port:
        new_shake, old_shake = handshakes(edge(port, strange_ca))
    assert new_shake.answer is Answer.NONE
    assert "certificate refused" in new_shake.said
    assert old_shake.answer is Answer.ACCEPTED


def test_who_hangs_up_or_is_not_there_has_refused_nothing(tmp_path: Path) -> None:
    ca_file, _ = make_certificates(tmp_path)
    with listening(None) as port:
        silent = handshakes(edge(port, ca_file))
    gone = handshakes(edge(port, ca_file))
    assert {shake.answer for shake in (*silent, *gone)} == {Answer.NONE}
    assert "is no CA file" in handshakes(edge(port, tmp_path / "none.pem"))[0].said
