"""Small models for the registry's tests, and what registers and serves them."""

from __future__ import annotations

from pathlib import Path

from services.registry import ModelCard, sha256_of
from services.registry.golden import Golden, GoldenRow
from services.registry.registry import ModelRegistry, Version, Why
from tests.unit.registry.test_files import artifact, card

MODEL = "flight-delay"
WHY = Why("a test", "to see it")
GOLDEN = Golden(rows=(GoldenRow(features={"month": 7.0, "origin": "EWR", "seats": None}, probability=0.25),))
CONTRACT = '{"type": "object"}'


def described(directory: Path, version: str, content: bytes | None = None) -> tuple[Path, ModelCard]:
    """An artifact file and its card."""
    path = artifact(directory, content if content is not None else f"trees of {version}".encode())
    return path, card(path, version=version)


def register(registry: ModelRegistry, directory: Path, version: str, content: bytes | None = None) -> Version:
    path, its_card = described(directory, version, content)
    assert its_card.sha256 == sha256_of(path)
    return registry.register(path, its_card, GOLDEN, CONTRACT, WHY)


def serve(registry: ModelRegistry, directory: Path, version: str) -> int:
    """Register, stage and promote; the generation."""
    register(registry, directory, version)
    registry.stage(MODEL, version, WHY)
    return registry.promote(MODEL, version, WHY).pointer.generation
