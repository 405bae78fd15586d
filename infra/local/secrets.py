"""The environment's secrets: made once, one file each (0600), never printed, never in argv."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from infra.local.account import Account
from infra.local.plan import LOOPBACK, LocalPlan
from infra.names import APP_ROLE, MAGE_ROLE

SECRET_BYTES: Final = 24
"""192 bits: beyond guessing, short enough for every server's limits."""


@dataclass(frozen=True, slots=True, repr=False)
class Secrets:
    superuser: str
    replication: str
    rewind: str
    rest: str
    app: str
    redis: str
    api_token: str
    admin_token: str
    mage_database: str
    mage_owner: str
    mage_session: str
    mage_trigger: str


def ensure(plan: LocalPlan, account: Account) -> Secrets:
    """Read the environment's secrets, making those that do not exist yet."""
    account.directory(plan.secrets_dir)

    def secret(name: str) -> str:
        path = plan.secrets_dir / name
        if not path.exists():
            account.write(path, secrets.token_urlsafe(SECRET_BYTES))
        return path.read_text()

    found = Secrets(
        superuser=secret("postgres_superuser"),
        replication=secret("postgres_replication"),
        rewind=secret("postgres_rewind"),
        rest=secret("patroni_rest"),
        app=secret("postgres_app"),
        redis=secret("redis"),
        api_token=secret("api_token"),
        admin_token=secret("admin_token"),
        mage_database=secret("mage_database"),
        mage_owner=secret("mage_owner"),
        mage_session=secret("mage_session"),
        mage_trigger=secret("mage_trigger"),
    )
    account.write(plan.passfile, passfile_line(APP_ROLE, found.app))
    account.write(plan.mage_passfile, passfile_line(MAGE_ROLE, found.mage_database))
    account.write(plan.admin_passfile, passfile_line("postgres", found.superuser))
    return found


def passfile_line(user: str, password: str) -> str:
    """libpq's format; any port, because a shard's members share their roles."""
    return f"{LOOPBACK}:*:*:{user}:{password}\n"


def redis_password_file(plan: LocalPlan) -> Path:
    return plan.secrets_dir / "redis"
