"""Migrations on two real shards: dry run everywhere first, all or nothing visible, skew named."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from services.contracts.shards import ShardEndpoints
from services.featurestore.errors import MigrationFailed, SchemaSkew, ShardUnavailable
from services.featurestore.migrate import ADVISORY_LOCK, apply, check_servable, plan, read_revisions
from services.featurestore.sessions import session, transaction
from tests.unit.featurestore.migration_sets import NOTHING, migrations_with

pytestmark = pytest.mark.integration

Shards = tuple[ShardEndpoints, ShardEndpoints]
NO_LONG_SEGMENT = "alter table entities add constraint short_segment check (length(segment) < 3)"


def tables(shard: ShardEndpoints) -> set[str]:
    with session(shard, application_name="test") as connection:
        return {name for (name,) in connection.execute("select tablename from pg_tables where schemaname = 'public'")}


def test_the_plan_changes_nothing_and_apply_reaches_head(empty_shards: Shards) -> None:
    planned = plan(empty_shards)
    assert [(shard.shard, shard.current, shard.pending) for shard in planned.shards] == [
        (0, None, ("0001",)), (1, None, ("0001",))
    ]  # fmt: skip
    assert tables(empty_shards[0]) == tables(empty_shards[1]) == set()

    assert apply(empty_shards) == planned
    assert read_revisions(empty_shards) == {0: "0001", 1: "0001"}
    assert {"entities", "features", "outcomes", "owned_slots", "batches", "rejected_rows"} < tables(empty_shards[1])
    assert all(not shard.pending for shard in apply(empty_shards).shards), "a second time there is nothing to do"
    check_servable(read_revisions(empty_shards))


def test_features_are_indexed_for_containment(shards: Shards) -> None:
    with session(shards[0], application_name="test") as connection:
        connection.execute("set enable_seqscan = off")
        lines = connection.execute(
            """explain select 1 from features where feature_vector @> '{"carrier": "UA"}'"""
        ).fetchall()
    assert any("Bitmap Index Scan" in line and "feature_vector" in line for (line,) in lines)


def test_a_dry_run_that_fails_on_one_shard_leaves_all_unchanged(shards: Shards, tmp_path: Path) -> None:
    with transaction(shards[1], application_name="test") as connection:
        connection.execute("insert into entities (entity_id, segment) values (gen_random_uuid(), 'TOO LONG')")
    stricter = migrations_with(tmp_path, {"0002": "create table extra (id int)", "0003": NO_LONG_SEGMENT})
    with pytest.raises(MigrationFailed, match=r"dry run of 0002, 0003 failed on shard 1 .*no shard was changed"):
        apply(shards, migrations=stricter)
    assert read_revisions(shards) == {0: "0001", 1: "0001"}
    assert "extra" not in tables(shards[0]) | tables(shards[1])


def test_skew_is_named_and_healed(shards: Shards, tmp_path: Path) -> None:
    two = migrations_with(tmp_path, {"0002": NOTHING})
    apply(shards[:1], migrations=two)
    skewed = plan(shards, migrations=two)
    assert skewed.skewed
    assert "shard 0 at 0002; shard 1 at 0001, needs 0002; the shards are skewed" in str(skewed)
    check_servable(read_revisions(shards), migrations=two)
    assert not plan(shards[:1], migrations=two).skewed

    apply(shards, migrations=two)
    assert read_revisions(shards) == {0: "0002", 1: "0002"}


def test_a_shard_ahead_of_this_release_is_refused_by_name(shards: Shards, tmp_path: Path) -> None:
    apply(shards[1:], migrations=migrations_with(tmp_path, {"0002": NOTHING}))
    with pytest.raises(SchemaSkew, match=r"shard 1 is at 0002, which this release \(head 0001\) does not know"):
        plan(shards)
    with pytest.raises(SchemaSkew, match="shard 1 is at 0002; this release serves 0001 only"):
        check_servable(read_revisions(shards))


def test_a_shard_that_is_away_stops_everything(empty_shards: Shards) -> None:
    (host,) = empty_shards[1].hosts
    nobody = empty_shards[1].model_copy(update={"hosts": (host.model_copy(update={"port": 1}),)})
    with pytest.raises(ShardUnavailable, match="shard 1"):
        apply((empty_shards[0], nobody))
    assert tables(empty_shards[0]) == set()


def test_two_migrators_do_not_meet(empty_shards: Shards) -> None:
    with transaction(empty_shards[0], application_name="test") as other:
        other.execute("select pg_advisory_xact_lock(%s)", (ADVISORY_LOCK,))
        with pytest.raises(MigrationFailed, match="another migration is at work on shard 0"):
            plan(empty_shards)
    plan(empty_shards)


def test_a_busy_table_stops_a_migration_instead_of_everybody(shards: Shards, tmp_path: Path) -> None:
    stricter = migrations_with(tmp_path, {"0002": NO_LONG_SEGMENT})
    with transaction(shards[0], application_name="test") as writer:
        writer.execute("insert into entities (entity_id, segment) values (gen_random_uuid(), 'UA')")
        with pytest.raises(MigrationFailed, match="lock timeout") as caught:
            plan(shards, migrations=stricter)
    assert isinstance(caught.value.__cause__, Exception)
    assert not isinstance(caught.value.__cause__, psycopg.errors.QueryCanceled)
    apply(shards, migrations=stricter)
