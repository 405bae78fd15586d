"""Brings every shard to one schema: a real dry run on each first, then the change; skew between shards is named."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psycopg
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from services.contracts.shards import ShardEndpoints
from services.featurestore.errors import CommitUnknown, MigrationFailed, SchemaSkew, ShardUnavailable
from services.featurestore.sessions import LOCK_TIMEOUT_MS, CommitWarnings

MIGRATIONS: Final = Path(__file__).with_name("migrations")
APPLICATION: Final = "breakwater-migrate"
ADVISORY_LOCK: Final = 0x6272656B
"""One migrator per shard at a time: any number, but the same in every release."""


@dataclass(frozen=True, slots=True)
class ShardPlan:
    """Where one shard stands (`current` is None before the first migration) and what it still needs, oldest first."""

    shard: int
    current: str | None
    pending: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MigrationPlan:
    """What it takes to bring every shard to `head`."""

    head: str
    shards: tuple[ShardPlan, ...]

    @property
    def skewed(self) -> bool:
        """True when shards stand at different revisions."""
        return len({shard.current for shard in self.shards}) > 1

    def __str__(self) -> str:
        places = (
            f"shard {shard.shard} at {shard.current or 'nothing'}"
            + (f", needs {', '.join(shard.pending)}" if shard.pending else "")
            for shard in self.shards
        )
        return f"head {self.head}; {'; '.join(places)}{'; the shards are skewed' if self.skewed else ''}"


def plan(shards: Sequence[ShardEndpoints], *, migrations: Path = MIGRATIONS) -> MigrationPlan:
    """Execute what is pending on every shard inside a transaction that is rolled back.

    Raises SchemaSkew when a shard is at a revision this release does not know, MigrationFailed naming the shard whose
    dry run failed, ShardUnavailable. Nothing is changed in any case.
    """
    scripts = ScriptDirectory.from_config(_config(migrations))
    found = _plan_from(read_revisions(shards), scripts)
    for shard, steps in zip(shards, found.shards, strict=True):
        if steps.pending:
            try:
                _upgrade(shard, migrations, keep=False)
            except (SQLAlchemyError, CommandError, psycopg.Error) as error:
                raise MigrationFailed(
                    f"the dry run of {', '.join(steps.pending)} failed on shard {shard.shard} (at "
                    f"{steps.current or 'nothing'}): {_reason(error)}; no shard was changed: correct the migration or "
                    "the data"
                ) from error
    return found


def apply(shards: Sequence[ShardEndpoints], *, migrations: Path = MIGRATIONS) -> MigrationPlan:
    """Dry run on every shard, then bring each to head, one transaction a shard. Returns the plan that was carried out.

    MigrationFailed when a shard fails after its dry run passed: it names the shards that have changed already. Running
    again continues.
    """
    carried_out = plan(shards, migrations=migrations)
    done: list[str] = []
    for shard, steps in zip(shards, carried_out.shards, strict=True):
        if not steps.pending:
            continue
        try:
            _upgrade(shard, migrations, keep=True)
        except (SQLAlchemyError, CommandError, psycopg.Error, CommitUnknown) as error:
            raise MigrationFailed(
                f"shard {shard.shard} could not be brought from {steps.current or 'nothing'} to {carried_out.head}: "
                f"{_reason(error)}; already there: {', '.join(done) or 'no shard'}; run the migration again"
            ) from error
        done.append(f"shard {shard.shard}")
    return carried_out


def read_revisions(shards: Sequence[ShardEndpoints]) -> dict[int, str | None]:
    """Each shard's revision; None where no migration has run."""
    revisions: dict[int, str | None] = {}
    for shard in shards:
        with _connection(shard) as connection:
            revisions[shard.shard] = MigrationContext.configure(connection).get_current_revision()
    return revisions


def servable_revisions(migrations: Path = MIGRATIONS) -> frozenset[str]:
    """Head and the one before it: a release serves while the shards are being brought to its schema, no longer."""
    scripts = ScriptDirectory.from_config(_config(migrations))
    newest = [script.revision for script in scripts.walk_revisions()]
    return frozenset(newest[:2])


def check_servable(revisions: Mapping[int, str | None], *, migrations: Path = MIGRATIONS) -> None:
    """SchemaSkew naming every shard that this release must not serve."""
    servable = servable_revisions(migrations)
    wrong = {shard: revision for shard, revision in revisions.items() if revision not in servable}
    if wrong:
        named = ", ".join(f"shard {shard} is at {revision or 'nothing'}" for shard, revision in sorted(wrong.items()))
        raise SchemaSkew(
            f"{named}; this release serves {' and '.join(sorted(servable))} only: migrate the shards, or run the "
            "release that fits them",
            wrong,
        )


def _plan_from(revisions: Mapping[int, str | None], scripts: ScriptDirectory) -> MigrationPlan:
    head = scripts.get_current_head()
    if head is None:
        raise MigrationFailed(f"no migration found in {scripts.dir}: the installation is incomplete, install again")
    oldest_first = [script.revision for script in scripts.walk_revisions()][::-1]
    unknown = {shard: revision for shard, revision in revisions.items() if revision not in (None, *oldest_first)}
    if unknown:
        named = ", ".join(f"shard {shard} is at {revision}" for shard, revision in sorted(unknown.items()))
        raise SchemaSkew(f"{named}, which this release (head {head}) does not know: use the release that made it")
    shards = (
        ShardPlan(shard, revision, tuple(oldest_first[oldest_first.index(revision) + 1 if revision else 0 :]))
        for shard, revision in revisions.items()
    )
    return MigrationPlan(head, tuple(shards))


def _upgrade(shard: ShardEndpoints, migrations: Path, *, keep: bool) -> None:
    with _connection(shard) as connection:
        warnings = CommitWarnings()
        driver: Any = connection.connection.driver_connection
        driver.add_notice_handler(warnings)
        with connection.begin() as change:
            connection.execute(text(f"set local lock_timeout = {LOCK_TIMEOUT_MS}"))
            alone = connection.scalar(text("select pg_try_advisory_xact_lock(:lock)"), {"lock": ADVISORY_LOCK})
            if not alone:
                raise MigrationFailed(f"another migration is at work on shard {shard.shard}: wait for it to end")
            command.upgrade(_config(migrations, connection), "head")
            warnings.clear()
            if keep:
                change.commit()
            else:
                change.rollback()
        if warnings.heard:
            raise CommitUnknown(shard.shard, warnings.heard[0])


@contextmanager
def _connection(shard: ShardEndpoints) -> Iterator[Connection]:
    conninfo = shard.conninfo("read-write", application_name=APPLICATION)
    engine = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(conninfo), poolclass=NullPool)
    try:
        connection = engine.connect()
    except (SQLAlchemyError, psycopg.OperationalError) as error:
        raise ShardUnavailable(shard.shard, f"no member accepts a read-write session: {error}") from error
    with connection:
        yield connection


def _reason(error: Exception) -> str:
    """What the server said, without SQLAlchemy's statement and link; the cause keeps those."""
    return " ".join(str(error.orig if isinstance(error, DBAPIError) else error).split())


def _config(migrations: Path, connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(migrations).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config
