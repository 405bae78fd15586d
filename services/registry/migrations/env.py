"""Alembic's entry: runs inside the connection and transaction that services.featurestore.migrate opened."""

from __future__ import annotations

from alembic import context

context.configure(connection=context.config.attributes["connection"])
context.run_migrations()
