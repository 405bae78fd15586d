"""How a client outside the platform reaches etcd: every server's address, and what proves the client."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from services.contracts.shards import HostPort
from services.coordination.etcd import EtcdClient
from services.coordination.tls import context_of


class ClientCertificate(BaseModel):
    """PEM files: who signed the servers' certificates, and the certificate and key that the client shows."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    authority: Path
    certificate: Path
    key: Path


class EtcdEndpoints(BaseModel):
    """etcd's servers. With `proof` both sides prove themselves and connections are encrypted; without, plain."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    hosts: tuple[HostPort, ...] = Field(min_length=1)
    proof: ClientCertificate | None = None

    @property
    def urls(self) -> tuple[str, ...]:
        scheme = "http" if self.proof is None else "https"
        return tuple(f"{scheme}://{entry.host}:{entry.port}" for entry in self.hosts)

    def client(self, *, timeout_s: float = 1.0) -> EtcdClient:
        """EtcdError when a file of the proof is missing or damaged."""
        proof = self.proof
        return EtcdClient(
            self.urls,
            timeout_s=timeout_s,
            tls=None if proof is None else context_of(proof.authority, proof.certificate, proof.key),
            addresses={entry.host: entry.address for entry in self.hosts if entry.address is not None},
        )
