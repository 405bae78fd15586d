"""Plain sessions on a shard for migrations, slots and loading; a commit counts only when nothing was warned."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg.errors import Diagnostic

from services.contracts.shards import SessionTarget, ShardEndpoints
from services.featurestore.errors import CommitUnknown, ShardUnavailable

LOCK_TIMEOUT_MS = 2000
"""A schema change that has to wait longer for a table gives up: behind it every reader and writer would queue."""


class CommitWarnings:
    """A notice handler that keeps warnings.

    PostgreSQL reports success and only warns when the wait for the synchronous standby was cancelled, so a COMMIT
    counts as acknowledged only when nothing was heard.
    """

    def __init__(self) -> None:
        self.heard: list[str] = []

    def __call__(self, notice: Diagnostic) -> None:
        if notice.severity_nonlocalized == "WARNING":
            self.heard.append(f"{notice.message_primary} (SQLSTATE {notice.sqlstate})")

    def clear(self) -> None:
        self.heard.clear()


@contextmanager
def session(
    shard: ShardEndpoints, *, application_name: str, target: SessionTarget = "read-write"
) -> Iterator[psycopg.Connection]:
    """An autocommit connection to the shard's primary (or `target`).

    ShardUnavailable when none answers, or when the server is lost or refuses to go on inside the block; whatever
    transaction was open is rolled back.
    """
    try:
        with psycopg.connect(shard.conninfo(target, application_name=application_name), autocommit=True) as connection:
            yield connection
    except psycopg.OperationalError as error:
        raise ShardUnavailable(shard.shard, f"{target} session: {error}") from error


@contextmanager
def transaction(shard: ShardEndpoints, *, application_name: str) -> Iterator[psycopg.Connection]:
    """One transaction on the primary; leaving the block means that it is durable on a standby too.

    Raises CommitUnknown when COMMIT brought a warning or no answer, ShardUnavailable when it was not reached.
    """
    with session(shard, application_name=application_name) as connection:
        warnings = CommitWarnings()
        connection.add_notice_handler(warnings)
        connection.execute("begin")
        yield connection
        warnings.clear()
        try:
            connection.execute("commit")
        except psycopg.Error as error:
            raise CommitUnknown(shard.shard, str(error)) from error
        if warnings.heard:
            raise CommitUnknown(shard.shard, warnings.heard[0])
