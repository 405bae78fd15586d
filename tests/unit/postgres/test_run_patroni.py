"""Patroni with addresses that are never old: a peer that comes back under another one is asked there."""

from __future__ import annotations

import socket
import threading
from typing import Any

import patroni.__main__
import pytest
import urllib3.util.connection
from patroni.dcs import etcd

from services.postgres import run_patroni
from services.postgres.run_patroni import Addresses, fresh_addresses

WAIT_S = 10.0
PEER = ("shard-0-1.postgres", 8008)


class Names:
    """A name server of one name; None while it is away."""

    def __init__(self) -> None:
        self.address: str | None = "10.0.0.1"
        self.heard = threading.Event()

    def getaddrinfo(self, host: str, port: int, *_: object) -> list[tuple[Any, ...]]:
        self.heard.set()
        if self.address is None or host != PEER[0]:
            raise socket.gaierror(socket.EAI_AGAIN, "nobody answers")
        return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (self.address, port))]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    made = Names()
    monkeypatch.setattr(socket, "getaddrinfo", made.getaddrinfo)
    return made


def address(addresses: Addresses) -> str | None:
    found = addresses.resolve(*PEER)
    return found[0][4][0] if found else None


def test_a_known_name_is_resolved_again_without_being_asked_for(names: Names) -> None:
    addresses = Addresses()
    assert address(addresses) == "10.0.0.1"
    names.address = "10.0.0.2"
    addresses.refresh()
    names.address = None
    assert address(addresses) == "10.0.0.2"


def test_a_name_server_that_is_away_takes_no_address_along(names: Names) -> None:
    addresses = Addresses()
    assert address(addresses) == "10.0.0.1"
    names.address = None
    addresses.refresh()
    assert address(addresses) == "10.0.0.1"


def test_a_name_without_an_address_is_asked_for_each_time(names: Names) -> None:
    addresses = Addresses()
    names.address = None
    assert address(addresses) is None
    names.address = "10.0.0.3"
    assert address(addresses) == "10.0.0.3"


def test_a_name_that_was_taken_back_is_asked_for_anew(names: Names) -> None:
    addresses = Addresses()
    assert address(addresses) == "10.0.0.1"
    names.address = "10.0.0.2"
    addresses.remove(*PEER)
    assert address(addresses) == "10.0.0.2"


def test_a_thread_refreshes_and_resolves_at_once_what_is_announced(names: Names) -> None:
    addresses = fresh_addresses()
    addresses.resolve_async(*PEER)
    assert names.heard.wait(WAIT_S)
    addresses.remove(*PEER)  # the thread outlives the test, with nothing to do


def test_patroni_connects_to_where_a_peer_is_now(names: Names, monkeypatch: pytest.MonkeyPatch) -> None:
    """By Patroni's own connections: a release that went about it otherwise would be seen here."""
    began: list[object] = []
    for module, name in ((etcd, "DnsCachingResolver"), (urllib3.util.connection, "create_connection")):
        monkeypatch.setattr(module, name, getattr(module, name))
    monkeypatch.setattr(patroni.__main__, "main", lambda: began.append(etcd.DnsCachingResolver))
    run_patroni.main()
    assert began == [fresh_addresses]

    addresses = Addresses()
    etcd.DnsCachingResolver = lambda: addresses
    store = etcd.Etcd.__new__(etcd.Etcd)
    assert store.get_etcd_client({}, lambda *_: "client") == "client"
    with (
        socket.create_server(("127.0.0.1", 0)) as before,
        socket.create_server(("127.0.0.2", before.getsockname()[1])) as after,
    ):
        for server, now in ((before, "127.0.0.1"), (after, "127.0.0.2")):
            names.address = now
            addresses.refresh()
            urllib3.util.connection.create_connection((PEER[0], before.getsockname()[1]), timeout=WAIT_S).close()
            server.settimeout(WAIT_S)
            server.accept()[0].close()
