"""Flawed versions for experiments: each is wrong in the one way that it should be, and a slow artifact is only slow."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path

from infra.local import models
from services.contracts.flights import contract_schema
from services.registry.golden import Golden, GoldenRow


def test_damage_turns_one_byte(tmp_path: Path) -> None:
    artifact = tmp_path / "artifact"
    artifact.write_bytes(bytes(range(100)))
    models.damage(artifact)
    assert [at for at, byte in enumerate(artifact.read_bytes()) if byte != at] == [50]


def test_whoever_opens_a_slow_artifact_waits_and_then_reads_it(tmp_path: Path) -> None:
    artifact = tmp_path / "artifact"
    artifact.write_bytes(b"trees")
    handler = signal.getsignal(signal.SIGIO)
    began = time.monotonic()
    with models.slow(artifact, 0.5):
        read = subprocess.run(["/bin/cat", str(artifact)], capture_output=True, check=True).stdout
        assert time.monotonic() - began >= 0.5
    assert read == b"trees"
    assert signal.getsignal(signal.SIGIO) is handler


def test_golden_rows_of_another_training_differ_in_one_probability() -> None:
    for probability in (0.2, 1.0):
        golden = Golden(rows=tuple(GoldenRow(features={}, probability=p) for p in (probability, 0.5)))
        other = models._of_another_training(golden)
        assert other.rows[1:] == golden.rows[1:]
        assert abs(other.rows[0].probability - probability) > 1e-3


def test_another_contract_asks_for_one_feature_more() -> None:
    ours, theirs = json.loads(contract_schema()), json.loads(models._of_another_contract())
    assert set(theirs["properties"]) - set(ours["properties"]) == {models.ADDED_FEATURE}
    assert set(theirs["required"]) - set(ours["required"]) == {models.ADDED_FEATURE}
