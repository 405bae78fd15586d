"""Asks every node of an H2O cloud about itself and its peers, and says what the answers amount to."""

from __future__ import annotations

import errno
import json
import ssl
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import urllib3
from urllib3.exceptions import HTTPError, NewConnectionError

from services.h2o.decision import Port

ASK_TIMEOUT = urllib3.Timeout(connect=0.5, read=1.0)
"""Seconds. A node answers in milliseconds, later while it collects garbage; nothing is concluded from that."""
HTTP_OK = 200
REFUSED_ERRNO = f"[Errno {errno.ECONNREFUSED}]"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeAddress:
    """Where a node listens: REST on `port`, its peers on the next one."""

    name: str
    host: str
    port: int
    scheme: str = "http"

    @property
    def peer(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.peer}"


@dataclass(frozen=True, slots=True)
class CloudView:
    """The cloud as one node describes it.

    `heard_ms`: when it last heard of each node, by its own clock. A node goes by its address and port and, where its
    peers were told a name, by name and port.
    """

    name: str
    size: int
    consensus: bool
    healthy: bool
    heard_ms: Mapping[str, int]

    @classmethod
    def parse(cls, answer: Mapping[str, Any]) -> CloudView:
        """From GET /3/Cloud; raises KeyError, TypeError or ValueError when it is something else."""
        return cls(
            name=str(answer["cloud_name"]),
            size=int(answer["cloud_size"]),
            consensus=bool(answer["consensus"]),
            healthy=bool(answer["cloud_healthy"]) and int(answer["bad_nodes"]) == 0,
            heard_ms={peer: int(node["last_ping"]) for node in answer["nodes"] for peer in _known_as(node)},
        )

    def age_s(self, peer: str) -> float | None:
        """Seconds since this node heard of `peer`, against its newest news (its own, normally): clocks may differ."""
        if peer not in self.heard_ms:
            return None
        return (max(self.heard_ms.values()) - self.heard_ms[peer]) / 1000


def _known_as(node: Mapping[str, Any]) -> set[str]:
    """H2O writes a node as host/address:port, without host when it was told an address."""
    host, _, address = str(node["h2o"]).rpartition("/")
    port = address.rpartition(":")[2]
    return {address, f"{host}:{port}"} if host else {address}


@dataclass(frozen=True, slots=True)
class Answer:
    port: Port
    view: CloudView | None = None


class Questioner:
    """Asks all nodes at once, over connections that it keeps. `trust`: whose certificates count, of nodes with TLS."""

    def __init__(self, nodes: Sequence[NodeAddress], trust: ssl.SSLContext | None = None) -> None:
        self._nodes = tuple(nodes)
        self._http = urllib3.PoolManager(num_pools=len(nodes), retries=False, timeout=ASK_TIMEOUT, ssl_context=trust)
        self._pool = ThreadPoolExecutor(len(nodes), thread_name_prefix="h2o-ask")

    def ask(self) -> dict[str, Answer]:
        """One answer per node name; takes at most the timeouts."""
        answers = self._pool.map(self._ask, self._nodes)
        return {node.name: answer for node, answer in zip(self._nodes, answers, strict=True)}

    def close(self) -> None:
        self._pool.shutdown(wait=False)
        self._http.clear()

    def _ask(self, node: NodeAddress) -> Answer:
        try:
            answer = self._http.request("GET", f"{node.url}/3/Cloud?skip_ticks=true")
        except NewConnectionError as error:
            return Answer(Port.REFUSED if REFUSED_ERRNO in str(error) else Port.SILENT)
        except HTTPError:
            return Answer(Port.SILENT)
        if answer.status != HTTP_OK:
            return Answer(Port.OPEN)  # it is starting
        try:
            return Answer(Port.OPEN, CloudView.parse(json.loads(answer.data)))
        except (KeyError, TypeError, ValueError):
            return Answer(Port.OPEN)


def is_whole(answers: Mapping[str, Answer], cloud: str) -> bool:
    """Whether every node says: this cloud, all nodes, in consensus, healthy."""
    return all(
        answer.view is not None
        and answer.view.name == cloud
        and answer.view.size == len(answers)
        and answer.view.consensus
        and answer.view.healthy
        for answer in answers.values()
    )


def heard_age_s(node: NodeAddress, answers: Mapping[str, Answer]) -> float | None:
    """Seconds since anybody heard of the node; 0 when it answered itself, None when nobody could say."""
    if answers[node.name].port is Port.OPEN:
        return 0.0
    ages = [
        age
        for answer in answers.values()
        if answer.view is not None and (age := answer.view.age_s(node.peer)) is not None
    ]
    return min(ages, default=None)
