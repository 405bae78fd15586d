"""Alembic's environment for the model registry's database."""
