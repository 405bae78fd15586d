"""Patroni with one difference: the addresses that it has of its peers are at most seconds old.

With etcd, Patroni keeps every name that it has resolved for ten minutes, for all connections of the process
(`create_connection_patched` in patroni/dcs/etcd.py). A pod that is replaced has another address: its peers would ask
the old one for a vote, in vain and for 2 s each time, and a candidate without votes is not promoted. Here all known
names are resolved again every few seconds, beside the loop, so that no election waits for a name server either.
"""

from __future__ import annotations

import socket
import threading
from typing import Any, Final, NoReturn

REFRESH_S: Final = 5.0
"""As long as CoreDNS lets a name live."""

Answer = list[tuple[Any, ...]]
"""What `socket.getaddrinfo` says of a host and port."""


class Addresses:
    """Takes the place of Patroni's `DnsCachingResolver` and has its methods."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, int], Answer] = {}
        self._announced = threading.Event()

    def resolve(self, host: str, port: int) -> Answer:
        """What is known; a name that is not known yet is asked for. Empty when it has no address."""
        return self._known.get((host, port)) or self._ask(host, port)

    def resolve_async(self, host: str, port: int) -> None:
        """Soon know this name."""
        self._known.setdefault((host, port), [])
        self._announced.set()

    def remove(self, host: str, port: int) -> None:
        self._known.pop((host, port), None)

    def refresh(self) -> None:
        """Ask for every known name again."""
        for host, port in list(self._known):
            self._ask(host, port)

    def keep_fresh(self) -> NoReturn:
        """Refresh every REFRESH_S, and at once when a name was announced."""
        while True:
            self._announced.wait(REFRESH_S)
            self._announced.clear()
            self.refresh()

    def _ask(self, host: str, port: int) -> Answer:
        """When nobody answers, what was known stays: a name server that is away must not take the peers along."""
        try:
            answer: Answer = socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        except OSError:
            return self._known.get((host, port), [])
        self._known[host, port] = answer
        return answer


def fresh_addresses() -> Addresses:
    """Addresses that a thread keeps fresh for as long as the process lives."""
    made = Addresses()
    threading.Thread(target=made.keep_fresh, name="addresses", daemon=True).start()
    return made


def main() -> None:
    # here, for Patroni starts PostgreSQL by a process that imports this module again
    from patroni.__main__ import main as patroni  # noqa: PLC0415
    from patroni.dcs import etcd  # noqa: PLC0415

    etcd.DnsCachingResolver = fresh_addresses
    patroni()


if __name__ == "__main__":
    main()
