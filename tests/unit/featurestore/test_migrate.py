"""Which revisions a release serves, and how skew is put into words."""

from __future__ import annotations

from pathlib import Path

import pytest
from alembic.script import ScriptDirectory

from services.featurestore.errors import SchemaSkew
from services.featurestore.migrate import MIGRATIONS, MigrationPlan, ShardPlan, check_servable, servable_revisions
from tests.unit.featurestore.migration_sets import NOTHING, migrations_with


def test_the_shipped_migrations_have_one_head() -> None:
    assert len(ScriptDirectory(str(MIGRATIONS)).get_heads()) == 1


def test_head_and_the_one_before_are_served(tmp_path: Path) -> None:
    three = migrations_with(tmp_path, {"0002": NOTHING, "0003": NOTHING})
    assert servable_revisions(three) == {"0002", "0003"}
    check_servable({0: "0003", 1: "0002"}, migrations=three)


def test_a_shard_further_behind_is_refused_by_name(tmp_path: Path) -> None:
    three = migrations_with(tmp_path, {"0002": NOTHING, "0003": NOTHING})
    with pytest.raises(SchemaSkew, match=r"shard 1 is at 0001, shard 2 is at nothing; this .* 0002 and 0003"):
        check_servable({0: "0003", 1: "0001", 2: None}, migrations=three)


def test_a_plan_names_the_skew() -> None:
    plan = MigrationPlan("0002", (ShardPlan(0, "0002", ()), ShardPlan(1, None, ("0001", "0002"))))
    assert plan.skewed
    assert str(plan) == ("head 0002; shard 0 at 0002; shard 1 at nothing, needs 0001, 0002; the shards are skewed")
