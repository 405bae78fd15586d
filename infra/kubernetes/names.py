"""The names of the stack's secrets, without Pulumi: those who make them need no engine."""

from __future__ import annotations

from typing import Final

NAMESPACE: Final = "secrets"
"""Their namespace in the stack's configuration: `pulumi config set --secret secrets:NAME`."""

PASSWORDS: Final = (
    "postgres_superuser",
    "postgres_replication",
    "postgres_rewind",
    "patroni_rest",
    "postgres_app",
    "mage_database",
    "mage_owner",
    "mage_session",
    "mage_trigger",
    "redis",
    "api_token",
    "admin_token",
)
CERTIFIED: Final = ("etcd", "postgres", "redis", "h2o", "edge", "client")
"""Who has a certificate of the environment's CA; `client` is what clients of etcd show."""
CA: Final = "tls_ca_crt"


def certificate(name: str) -> str:
    return f"tls_{name}_crt"


def key(name: str) -> str:
    return f"tls_{name}_key"


STACK_SECRETS: Final = (*PASSWORDS, CA, *(part(name) for name in CERTIFIED for part in (certificate, key)))
