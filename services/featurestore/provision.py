"""What the shards need before services can use them: roles, databases, schema, slots and partitions.

`python -m services.featurestore.provision CONFIG` does it all; running it again changes nothing.
"""

from __future__ import annotations

import base64
import contextlib
import datetime
import hashlib
import hmac
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import psycopg
from psycopg import sql
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from services.contracts.shards import ShardEndpoints
from services.coordination.etcd import EtcdClient, EtcdError
from services.featurestore import migrate
from services.featurestore.errors import FeatureStoreError, NotProvisioned
from services.featurestore.partitions import ensure_partitions, standing_months
from services.featurestore.slots import publish_slot_map
from services.registry import registry

APPLICATION: Final = "breakwater-provision"
SCRAM_ROUNDS: Final = 1
"""PostgreSQL's 4,096 rounds slow down who guesses a person's password. Ours are 192 random bits, beyond guessing, and
the rounds double the cost of each login just when every client logs in again: after a failover."""
SCRAM_SALT_BYTES: Final = 16


class Owner(BaseModel):
    """A role and the database that it owns, on some shards.

    `observes`: may read the servers' own views, and end a bulk load with a checkpoint.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    role: str
    database: str
    password_file: Path
    shards: tuple[int, ...]
    observes: bool = False


class ProvisionConfig(BaseModel):
    """`admin` are the shards as superuser, `shards` as the application, with the same numbers.

    `registry` is the model registry's database, which one of `owners` makes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    environment: str
    etcd: tuple[str, ...] = Field(min_length=1)
    admin: tuple[ShardEndpoints, ...] = Field(min_length=1)
    shards: tuple[ShardEndpoints, ...] = Field(min_length=1)
    registry: ShardEndpoints
    owners: tuple[Owner, ...]


def ensure_database(admin: ShardEndpoints, role: str, database: str, password: str, *, observes: bool) -> None:
    """Make role and database where missing, set the role's password; NotProvisioned when the primary refuses."""
    with (
        _refusals(f"making role {role} and database {database} of shard {admin.shard}"),
        psycopg.connect(admin.conninfo("read-write", application_name=APPLICATION), autocommit=True) as connection,
    ):
        # The server gets a verifier, so that the password itself is in no statement and no log.
        verifier = scram_verifier(password)
        known = connection.execute("select 1 from pg_roles where rolname = %s", (role,)).fetchone()
        verb = sql.SQL("alter role" if known else "create role")
        connection.execute(sql.SQL("{} {} login password {}").format(verb, sql.Identifier(role), sql.Literal(verifier)))
        if not connection.execute("select 1 from pg_database where datname = %s", (database,)).fetchone():
            connection.execute(
                sql.SQL("create database {} owner {}").format(sql.Identifier(database), sql.Identifier(role))
            )
        if observes:
            connection.execute(sql.SQL("grant pg_monitor, pg_checkpoint to {}").format(sql.Identifier(role)))


def scram_verifier(password: str) -> str:
    """What PostgreSQL stores for a password (RFC 5802; src/common/scram-common.c), with `SCRAM_ROUNDS` rounds."""
    salt = os.urandom(SCRAM_SALT_BYTES)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, SCRAM_ROUNDS)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    encoded = [base64.b64encode(part).decode() for part in (salt, stored, server)]
    return f"SCRAM-SHA-256${SCRAM_ROUNDS}:{encoded[0]}${encoded[1]}:{encoded[2]}"


def prepare_shards(etcd_urls: Sequence[str], environment: str, shards: Sequence[ShardEndpoints]) -> str:
    """Schema at head on every shard, slots published, partitions made ahead; returns one line for the progress."""
    with _refusals("preparing the shards"):
        applied = migrate.apply(shards)
        with contextlib.closing(EtcdClient(etcd_urls)) as etcd:
            slots = publish_slot_map(etcd, environment, shards)
        today = datetime.datetime.now(datetime.UTC).date()
        made = ensure_partitions(shards, standing_months(today))
    return f"revision {applied.head}, slot map generation {slots.generation}, {made} partitions made"


@contextlib.contextmanager
def _refusals(what: str) -> Iterator[None]:
    try:
        yield
    except psycopg.Error as error:
        raise NotProvisioned(
            f"{what} failed: {' '.join(str(error).split())}; a shard that just changed its primary does so once: "
            "run it again, and if it stays so look at the shard's members"
        ) from error


def provision(config: ProvisionConfig) -> str:
    """Everything, on every shard; returns one line that says what stands."""
    for owner in config.owners:
        password = owner.password_file.read_text().strip()
        for admin in config.admin:
            if admin.shard in owner.shards:
                ensure_database(admin, owner.role, owner.database, password, observes=owner.observes)
    with _refusals("preparing the model registry"):
        migrate.apply([config.registry], migrations=registry.MIGRATIONS)
    return prepare_shards(config.etcd, config.environment, config.shards)


def main(arguments: list[str]) -> int:
    match arguments:
        case [path]:
            try:
                sys.stderr.write(
                    f"provision: {provision(ProvisionConfig.model_validate_json(Path(path).read_bytes()))}\n"
                )
            except (FeatureStoreError, EtcdError, OSError, ValidationError) as error:
                sys.stderr.write(f"provision: {error}\n")
                return 1
            return 0
        case _:
            sys.stderr.write("usage: python -m services.featurestore.provision CONFIG\n")
            return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
