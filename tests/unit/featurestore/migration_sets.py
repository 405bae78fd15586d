"""Copies of the shipped migrations with more revisions behind them."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from services.featurestore.migrate import MIGRATIONS

NOTHING = "select 1"


def migrations_with(directory: Path, later: Mapping[str, str]) -> Path:
    """The shipped migrations, then one per entry (revision -> SQL statement), in that order."""
    copy = directory / "migrations"
    shutil.copytree(MIGRATIONS, copy, ignore=shutil.ignore_patterns("__pycache__"))
    previous = "0001"
    for revision, statement in later.items():
        (copy / "versions" / f"{revision}_test.py").write_text(
            f"from alembic import op\n\nrevision = {revision!r}\ndown_revision = {previous!r}\n\n\n"
            f"def upgrade():\n    op.execute({statement!r})\n"
        )
        previous = revision
    return copy
