"""How a client reaches one shard: every member's address, routed by libpq itself (no proxy hop on the write path)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from psycopg.conninfo import make_conninfo
from pydantic import BaseModel, ConfigDict, Field

SessionTarget = Literal["any", "read-write", "primary", "standby", "prefer-standby"]

CONNECT_TIMEOUT_S = 2
"""libpq's smallest useful value (it raises 1 to 2); a refused connection returns at once, this bounds a silent host."""

KEEPALIVE: dict[str, str] = {
    "keepalives": "1",
    "keepalives_idle": "2",
    "keepalives_interval": "1",
    "keepalives_count": "2",
    "tcp_user_timeout": "3000",
}
"""A silent peer is given up after about 4 s; tcp_user_timeout is in milliseconds."""


def patroni_namespace(environment: str) -> str:
    """Prefix of everything that the environment's Patronis keep in etcd."""
    return f"/breakwater/{environment}/patroni/"


def leader_key(environment: str, shard: int) -> str:
    """etcd key whose value is the shard's leader; put anew when a member wins an election."""
    return f"{patroni_namespace(environment)}shard-{shard}/leader"


class HostPort(BaseModel):
    """One member. `host` is what its certificate names; `address` is where it is reached by those who do not resolve
    that name, as from outside a cluster."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    host: str
    port: int = Field(gt=0, lt=65536)
    address: str | None = None

    @property
    def reached_at(self) -> str:
        return self.address or self.host


class ShardEndpoints(BaseModel):
    """One shard's members and how to log in. The password travels only in `passfile` (libpq format, mode 0600).

    With `root_certificate` (PEM) connections are encrypted and servers must prove their names; without, they are plain.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    shard: int = Field(ge=0, lt=255)
    hosts: tuple[HostPort, ...] = Field(min_length=1)
    dbname: str
    user: str
    passfile: Path
    root_certificate: Path | None = None

    def conninfo(self, target: SessionTarget, *, application_name: str) -> str:
        """libpq multi-host conninfo; hosts are tried in order until one fits `target`."""
        return make_conninfo(
            host=",".join(entry.host for entry in self.hosts),
            port=",".join(str(entry.port) for entry in self.hosts),
            dbname=self.dbname,
            user=self.user,
            passfile=str(self.passfile),
            target_session_attrs=target,
            **self._addresses(),
            connect_timeout=str(CONNECT_TIMEOUT_S),
            application_name=application_name,
            **self._security(),
            **KEEPALIVE,
        )

    def _addresses(self) -> dict[str, str]:
        """libpq connects to `hostaddr` and verifies the certificate by `host`; an empty one is looked up."""
        if all(entry.address is None for entry in self.hosts):
            return {}
        return {"hostaddr": ",".join(entry.address or "" for entry in self.hosts)}

    def _security(self) -> dict[str, str]:
        if self.root_certificate is None:
            return {}
        return {"sslmode": "verify-full", "sslrootcert": str(self.root_certificate)}

    def member_conninfo(self, name: str, *, application_name: str) -> str:
        """conninfo of one member, whatever its role; KeyError when the shard has no such member."""
        return self.only(name).conninfo("any", application_name=application_name)

    def only(self, name: str) -> ShardEndpoints:
        """The shard as if it had this member alone; KeyError when it has no such member."""
        for entry in self.hosts:
            if entry.name == name:
                return self.model_copy(update={"hosts": (entry,)})
        raise KeyError(f"shard {self.shard} has no member {name}")
