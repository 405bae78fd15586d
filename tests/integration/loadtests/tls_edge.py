"""A tiny TLS server that stands in for the edge's address: answers like the API, and can be told to stall.

It imitates no dependency of the platform under test; it only gives the load client something exactly known to measure.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import ssl
import threading
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

NAME = "edge.example.org"
PREDICTION = {"probability": 0.25, "late": False, "source": "scored", "staleness_s": None}
STALENESS_S = 0.0125
ACKNOWLEDGED = {"shard": 0, "timeline": 3, "server": "shard-0-0", "idempotency_key": "k"}


def make_certificates(directory: Path) -> tuple[Path, Path]:
    """A CA and a certificate for 127.0.0.1 and NAME that it signed: (CA file, server's chain and key)."""
    day = timedelta(days=1)
    now = datetime.now(UTC)

    def build(name: str, key: ec.EllipticCurvePrivateKey, issuer: str) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - day)
            .not_valid_after(now + day)
        )

    authority, server = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    root = build("test CA", authority, "test CA").add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName(NAME)])
    leaf = build("edge", server, "test CA").add_extension(address, False)
    ca_file, server_file = directory / "ca.pem", directory / "edge.pem"
    ca_file.write_bytes(root.sign(authority, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    chain = leaf.sign(authority, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    secret = server.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    server_file.write_bytes(chain + secret)
    return ca_file, server_file


class TlsEdge:
    """Serves in a thread; `stall` holds answers back, `problem` answers writes, a `forgetful` one finds nothing."""

    def __init__(self, server_file: Path, token: str) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.minimum_version = ssl.TLSVersion.TLSv1_3
        self._context.load_cert_chain(server_file)
        self._token = token
        self._open = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._go = asyncio.Event()
        self.port = 0
        self.seen: Counter[str] = Counter()
        self.connections = 0
        self.problem: tuple[int, str] | None = None
        self.written: dict[str, object] = {}
        self.forgetful = False

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def stall(self, *, on: bool) -> None:
        self._loop.call_soon_threadsafe(self._go.clear if on else self._go.set)

    @contextlib.contextmanager
    def serving(self) -> Iterator[TlsEdge]:
        thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),))
        thread.start()
        self._open.wait(10)
        try:
            yield self
        finally:
            self._loop.call_soon_threadsafe(self._end.set)
            thread.join()
            self._loop.close()

    async def _serve(self) -> None:
        self._end = asyncio.Event()
        self._go.set()
        server = await asyncio.start_server(self._connection, "127.0.0.1", 0, ssl=self._context, backlog=512)
        self.port = server.sockets[0].getsockname()[1]
        self._open.set()
        await self._end.wait()
        server.close()
        connections = asyncio.all_tasks() - {asyncio.current_task()}
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                lengths = [
                    int(line.partition(":")[2])
                    for line in head.splitlines()
                    if line.lower().startswith("content-length")
                ]
                body = json.loads(await reader.readexactly(lengths[0])) if lengths else {}
                status, answer = self._answer(head, body)
                await self._go.wait()
                content = json.dumps(answer).encode()
                writer.write(f"HTTP/1.1 {status} X\r\nContent-Length: {len(content)}\r\n\r\n".encode() + content)
                await writer.drain()
        writer.close()

    def _answer(self, head: str, body: dict[str, object]) -> tuple[int, dict[str, object]]:
        if f"authorization: bearer {self._token}" not in head.lower():
            return 401, {"code": "unauthorized"}
        if head.startswith("POST /v1/predict "):
            self.seen["by vector" if "features" in body else "by entity"] += 1
            return 200, dict(PREDICTION)
        if head.startswith("GET /v1/features?"):
            self.seen["read"] += 1
            query = parse_qs(urlsplit(head.split()[1]).query)
            found = self.written.get(query["entity_id"][0])
            if found is None or self.forgetful:
                return 404, {"code": "features_not_found", "staleness_s": STALENESS_S}
            return 200, {"features": found, "staleness_s": STALENESS_S, "from_standby": True}
        self.seen["write"] += 1
        if self.problem is not None:
            status, code = self.problem
            return status, {"code": code}
        self.written[str(body["entity_id"])] = body["features"]
        return 200, dict(ACKNOWLEDGED)
