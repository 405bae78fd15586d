"""Who is connected to whom, by the sockets of every pod: the platform's real flows, with or without network rules."""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Iterator
from typing import Any, Final

from tests.kubernetes.platform import COMPONENT, KubectlFailed, Platform

LISTENS: Final = "0A"
ELSEWHERE: Final = "outside the platform"


def opened(platform: Platform) -> set[tuple[str, str, int]]:
    """(component, component, port) of every connection that a pod has opened; `ELSEWHERE` is any address not ours."""
    pods = [pod for pod in platform.get("pods") if pod["status"].get("podIP") and pod["status"]["phase"] == "Running"]
    owners = {pod["status"]["podIP"]: _component(pod) for pod in pods}
    owners |= {service["spec"]["clusterIP"]: _component(service) for service in platform.get("services")}
    found: set[tuple[str, str, int]] = set()
    for pod in pods:
        own = pod["status"]["podIP"]
        for host, port in _outgoing(platform, pod):
            if host != own and not ipaddress.ip_address(host).is_loopback:
                found.add((_component(pod), owners.get(host, ELSEWHERE), port))
    return found


def _component(made: dict[str, Any]) -> str:
    return str(made["metadata"]["labels"][COMPONENT])


def _outgoing(platform: Platform, pod: dict[str, Any]) -> Iterator[tuple[str, int]]:
    """Remote address and port of each connection whose own port nobody listens on: this side has opened it."""
    name, container = pod["metadata"]["name"], pod["spec"]["containers"][0]["name"]
    sockets = []
    with contextlib.suppress(KubectlFailed):  # a pod that ends meanwhile
        said = platform.kubectl("exec", name, "-c", container, "--", "cat", "/proc/net/tcp", "/proc/net/tcp6")
        sockets = [line.split()[1:4] for line in said.splitlines() if ":" in line.split()[0]]
    listening = {_address(local)[1] for local, _, state in sockets if state == LISTENS}
    for local, remote, state in sockets:
        if state != LISTENS and _address(local)[1] not in listening:
            yield _address(remote)


def _address(text: str) -> tuple[str, int]:
    """The kernel's hexadecimal: each 32 bits of the address as this machine's integer, the port as written."""
    host, _, port = text.partition(":")
    words = [int(host[start : start + 8], 16).to_bytes(4, "little") for start in range(0, len(host), 8)]
    found = ipaddress.ip_address(b"".join(words))
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return str(mapped or found), int(port, 16)
