"""What a shard needs before services can use it: the application's role and database, made once on the primary."""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Iterator
from typing import Final

import psycopg
from psycopg import sql

from infra.environment import EnvironmentFault
from infra.local.plan import APP_ROLE, FEATURES_DATABASE, LocalPlan
from infra.local.secrets import Secrets
from services.contracts.shards import ShardEndpoints
from services.coordination.etcd import EtcdClient
from services.featurestore import migrate
from services.featurestore.partitions import ensure_partitions, standing_months
from services.featurestore.slots import publish_slot_map

APPLICATION: Final = "breakwater-provision"


@contextlib.contextmanager
def _refusals(what: str) -> Iterator[None]:
    try:
        yield
    except psycopg.Error as error:
        raise EnvironmentFault(
            f"{what} failed: {' '.join(str(error).split())}; a shard that just changed its primary does so once: "
            "run `up` again, and if it stays so read `breakwater status`"
        ) from error


@_refusals("making the application's role and database")
def ensure_database(admin: ShardEndpoints, secrets: Secrets) -> None:
    """Make role and database where missing, set the role's password; EnvironmentFault when the primary refuses."""
    with psycopg.connect(admin.conninfo("read-write", application_name=APPLICATION), autocommit=True) as connection:
        # The server gets a SCRAM verifier, so that the password itself is in no statement and no log.
        verifier = connection.pgconn.encrypt_password(secrets.app.encode(), APP_ROLE.encode(), b"scram-sha-256")
        known = connection.execute("select 1 from pg_roles where rolname = %s", (APP_ROLE,)).fetchone()
        verb = sql.SQL("alter role" if known else "create role")
        connection.execute(
            sql.SQL("{} {} login password {}").format(verb, sql.Identifier(APP_ROLE), sql.Literal(verifier.decode()))
        )
        if not connection.execute("select 1 from pg_database where datname = %s", (FEATURES_DATABASE,)).fetchone():
            connection.execute(
                sql.SQL("create database {} owner {}").format(
                    sql.Identifier(FEATURES_DATABASE), sql.Identifier(APP_ROLE)
                )
            )
        # Observers read the server's own views through the application's role.
        connection.execute(sql.SQL("grant pg_monitor to {}").format(sql.Identifier(APP_ROLE)))


@_refusals("preparing the shards")
def prepare_shards(plan: LocalPlan) -> str:
    """Schema at head on every shard, slots published, partitions made ahead; returns one line for the progress."""
    shards = plan.all_shards()
    applied = migrate.apply(shards)
    with contextlib.closing(EtcdClient(plan.etcd_urls)) as etcd:
        slots = publish_slot_map(etcd, plan.environment, shards)
    today = datetime.datetime.now(datetime.UTC).date()
    made = ensure_partitions(shards, standing_months(today))
    return f"revision {applied.head}, slot map generation {slots.generation}, {made} partitions made"
