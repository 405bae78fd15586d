"""Offers one version of TLS at a time to the edge."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from experiments.gate.facts import Answer, Handshake
from infra.environment import Edge

PATIENCE_S: Final = 5.0
HTTPS: Final = 443
VERSIONS: Final = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


def handshakes(edge: Edge) -> tuple[Handshake, ...]:
    """What the edge makes of TLS 1.3, then of TLS 1.2."""
    return tuple(handshake(edge, offered) for offered in ("1.3", "1.2"))


def handshake(edge: Edge, offered: str) -> Handshake:
    """One handshake. 1.3 must prove the server's name; for a 1.2 that is refused no certificate is ever shown."""
    url = urlsplit(edge.url)
    host, port = url.hostname or "", url.port or HTTPS
    address = f"{host}:{port}"
    try:
        context = _context(edge.ca_file, offered)
    except OSError as error:
        return Handshake(address, offered, Answer.NONE, f"{edge.ca_file} is no CA file: {error}")
    try:
        with (
            socket.create_connection((host, port), timeout=PATIENCE_S) as plain,
            context.wrap_socket(plain, server_hostname=edge.name or host) as secure,
        ):
            return Handshake(address, offered, Answer.ACCEPTED, str(secure.version()))
    except ssl.SSLError as error:
        alert = error.reason is not None and "ALERT" in error.reason
        return Handshake(address, offered, Answer.REFUSED if alert else Answer.NONE, _words(error))
    except OSError as error:
        return Handshake(address, offered, Answer.NONE, error.strerror or str(error))


def _context(ca_file: Path, offered: str) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(ca_file))
    if offered == "1.2":
        # An edge that takes 1.2 must be found out also when its certificate would not do.
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    context.maximum_version = VERSIONS[offered]
    context.minimum_version = VERSIONS[offered]
    return context


def _words(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate refused: {error.verify_message}"
    return (error.reason or str(error)).lower().replace("_", " ")
