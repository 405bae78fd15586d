"""Alembic environment of the shards' schema; one head. Run through services.featurestore.migrate."""
