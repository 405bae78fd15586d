"""What a shard needs before services can use it: the application's role and database, made once on the primary."""

from __future__ import annotations

import base64
import contextlib
import datetime
import hashlib
import hmac
import os
from collections.abc import Iterator
from typing import Final

import psycopg
from psycopg import sql

from infra.environment import EnvironmentFault
from infra.local.plan import APP_ROLE, FEATURES_DATABASE, REGISTRY_SHARD, LocalPlan
from infra.local.secrets import Secrets
from services.contracts.shards import ShardEndpoints
from services.coordination.etcd import EtcdClient
from services.featurestore import migrate
from services.featurestore.partitions import ensure_partitions, standing_months
from services.featurestore.slots import publish_slot_map
from services.registry import registry

APPLICATION: Final = "breakwater-provision"
SCRAM_ROUNDS: Final = 1
"""PostgreSQL's 4,096 rounds slow down who guesses a person's password. Ours are 192 random bits, beyond guessing, and
the rounds double the cost of each login just when every client logs in again: after a failover."""
SCRAM_SALT_BYTES: Final = 16


@contextlib.contextmanager
def _refusals(what: str) -> Iterator[None]:
    try:
        yield
    except psycopg.Error as error:
        raise EnvironmentFault(
            f"{what} failed: {' '.join(str(error).split())}; a shard that just changed its primary does so once: "
            "run `up` again, and if it stays so read `breakwater status`"
        ) from error


def databases_of(shard: int) -> tuple[str, ...]:
    """What a shard's cluster holds: the features, and on one of them the model registry."""
    return (FEATURES_DATABASE, registry.DATABASE) if shard == REGISTRY_SHARD else (FEATURES_DATABASE,)


@_refusals("making the application's role and databases")
def ensure_database(admin: ShardEndpoints, secrets: Secrets, *databases: str) -> None:
    """Make role and databases where missing, set the role's password; EnvironmentFault when the primary refuses."""
    with psycopg.connect(admin.conninfo("read-write", application_name=APPLICATION), autocommit=True) as connection:
        # The server gets a verifier, so that the password itself is in no statement and no log.
        verifier = scram_verifier(secrets.app)
        known = connection.execute("select 1 from pg_roles where rolname = %s", (APP_ROLE,)).fetchone()
        verb = sql.SQL("alter role" if known else "create role")
        connection.execute(
            sql.SQL("{} {} login password {}").format(verb, sql.Identifier(APP_ROLE), sql.Literal(verifier))
        )
        for database in databases:
            if not connection.execute("select 1 from pg_database where datname = %s", (database,)).fetchone():
                connection.execute(
                    sql.SQL("create database {} owner {}").format(sql.Identifier(database), sql.Identifier(APP_ROLE))
                )
        # Observers read the server's own views through the application's role; a bulk load ends with a checkpoint.
        connection.execute(sql.SQL("grant pg_monitor, pg_checkpoint to {}").format(sql.Identifier(APP_ROLE)))


@_refusals("preparing the shards")
def scram_verifier(password: str) -> str:
    """What PostgreSQL stores for a password (RFC 5802; src/common/scram-common.c), with `SCRAM_ROUNDS` rounds."""
    salt = os.urandom(SCRAM_SALT_BYTES)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, SCRAM_ROUNDS)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    encoded = [base64.b64encode(part).decode() for part in (salt, stored, server)]
    return f"SCRAM-SHA-256${SCRAM_ROUNDS}:{encoded[0]}${encoded[1]}:{encoded[2]}"


def prepare_shards(plan: LocalPlan) -> str:
    """Schemas at head, slots published, partitions made ahead; returns one line for the progress."""
    shards = plan.all_shards()
    applied = migrate.apply(shards)
    migrate.apply([plan.registry_endpoints()], migrations=registry.MIGRATIONS)
    with contextlib.closing(EtcdClient(plan.etcd_urls)) as etcd:
        slots = publish_slot_map(etcd, plan.environment, shards)
    today = datetime.datetime.now(datetime.UTC).date()
    made = ensure_partitions(shards, standing_months(today))
    return f"revision {applied.head}, slot map generation {slots.generation}, {made} partitions made"
