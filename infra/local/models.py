"""Versions of the model for experiments: registered from outside, sound or flawed, and what each must predict."""

from __future__ import annotations

import contextlib
import csv
import fcntl
import json
import os
import signal
import subprocess
import threading
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

from infra.environment import EnvironmentFault
from infra.local.account import Account
from infra.local.plan import LocalPlan
from infra.local.servers import JAVA
from services.contracts.flights import FEATURES, MODEL_NAME, contract_schema
from services.coordination.etcd import EtcdClient
from services.h2o.genmodel import server_jar
from services.h2o.trained import TrainedModel
from services.registry.card import sha256_of
from services.registry.golden import Golden
from services.registry.published import open_version
from services.registry.registry import ModelRegistry, Version, Why
from services.registry.store import ArtifactStore

Flaw = Literal["none", "schema", "golden"]
"""What is wrong with a version: a contract with one more feature, or another training's golden rows."""

BRING_BACK: Final = "bring-back"
WHY: Final = Why("an experiment", "a version for a reload under load")
ADDED_FEATURE: Final = "wind_gust"
OFF_BY: Final = 0.01
"""Golden rows that say so much more than the model are of another training."""
SCORED_S: Final = 30.0


@contextlib.contextmanager
def _registry(plan: LocalPlan) -> Iterator[ModelRegistry]:
    with contextlib.closing(EtcdClient(plan.etcd_urls)) as etcd:
        yield ModelRegistry(plan.registry_endpoints(), etcd, plan.environment, ArtifactStore(plan.artifacts))


def in_production(plan: LocalPlan) -> str:
    """The version that serves; EnvironmentFault when none does."""
    with _registry(plan) as registry:
        found = next((pointer.version for pointer in registry.wanted() if pointer.name == MODEL_NAME), None)
    if found is None:
        raise EnvironmentFault(f"no model is in production in {plan.environment}; run `breakwater train`")
    return found


def keep(plan: LocalPlan) -> str:
    """The version that serves, noted on disk: whatever ends an experiment, `heal` brings it back."""
    version = in_production(plan)
    Account.for_servers().write(_undo(plan, version), json.dumps({"action": BRING_BACK, "member": version}))
    return version


def _undo(plan: LocalPlan, version: str) -> Path:
    return plan.undo_dir / f"{version}.{BRING_BACK}.json"


def bring_back(plan: LocalPlan, version: str) -> int:
    """Go back, version by version, until this one serves again; returns how many steps that took."""
    steps = 0
    while in_production(plan) != version:
        with _registry(plan) as registry:
            registry.rollback(MODEL_NAME, Why(WHY.actor, f"back to {version}, which served before"))
        steps += 1
    _undo(plan, version).unlink(missing_ok=True)
    return steps


def register(plan: LocalPlan, trained: Path, version: str, flaw: Flaw) -> Path:
    """Register and stage what was trained in a directory as this version, flawed or not; the artifact in the store.

    Each version has an artifact of its own (the same model in another archive), so that what is done to one of them
    touches no other.
    """
    model = TrainedModel.read(trained)
    copy = trained / f"{version}.zip"
    copy.write_bytes(model.model_zip.read_bytes())
    with zipfile.ZipFile(copy, "a") as archive:
        archive.comment = version.encode()
    card = model.card.model_copy(update={"version": version, "sha256": sha256_of(copy)})
    golden = _of_another_training(model.golden) if flaw == "golden" else model.golden
    contract = _of_another_contract() if flaw == "schema" else contract_schema()
    with _registry(plan) as registry:
        registry.register(copy, card, golden, contract, WHY)
        registry.stage(MODEL_NAME, version, WHY)
    return ArtifactStore(plan.artifacts).fetch(card.sha256)


def damage(artifact: Path) -> None:
    """Turn every bit of one byte in the middle, as a failing disk might."""
    with artifact.open("r+b") as content:
        content.seek(artifact.stat().st_size // 2)
        byte = content.read(1)
        content.seek(-1, os.SEEK_CUR)
        content.write(bytes([byte[0] ^ 0xFF]))


@contextlib.contextmanager
def slow(artifact: Path, seconds: float) -> Iterator[None]:
    """Whoever opens the file within the next `seconds` waits until they are over, as at a store that is slow.

    A lease on the file (fcntl(2), F_SETLEASE) lets the kernel hold every open back until it is given up.
    Only on the main thread, as everything that handles signals.
    """
    descriptor = os.open(artifact, os.O_RDWR)
    before = signal.signal(signal.SIGIO, signal.SIG_IGN)  # tells of each open that waits, and would end this process
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    except OSError as error:
        os.close(descriptor)
        signal.signal(signal.SIGIO, before)
        raise EnvironmentFault(f"{artifact} cannot be made slow: {error.strerror}; is somebody reading it?") from error
    release = threading.Timer(seconds, fcntl.fcntl, (descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK))
    release.start()
    try:
        yield
    finally:
        release.cancel()
        release.join()
        os.close(descriptor)
        signal.signal(signal.SIGIO, before)


def predictions(
    plan: LocalPlan, version: str, flights: Sequence[Mapping[str, Any]], directory: Path
) -> tuple[float, ...]:
    """What a registered version says of each flight, by H2O's own command-line scorer: to the last bit.

    The replicas score with the same runtime but with code of ours around it, which this leaves out.
    """
    with _registry(plan) as registry:
        found: Version = registry.version(MODEL_NAME, version)
    artifact = open_version(ArtifactStore(plan.artifacts), found.manifest, MODEL_NAME, version).artifact
    asked, answered, mojo = (directory / f"{version}.{kind}" for kind in ("in.csv", "out.csv", "mojo.zip"))
    mojo.write_bytes(artifact.read_bytes())
    with asked.open("w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(FEATURES)
        writer.writerows(["" if flight.get(n) is None else flight[n] for n in FEATURES] for flight in flights)
    command = [str(JAVA), "-Xmx128m", "-cp", str(server_jar()), "hex.genmodel.tools.PredictCsv"]
    done = subprocess.run(
        [*command, "--mojo", str(mojo), "--input", str(asked), "--output", str(answered)],
        capture_output=True,
        text=True,
        timeout=SCORED_S,
        check=False,
    )
    if done.returncode != 0:
        said = " ".join((done.stderr or done.stdout).split())[-300:]
        raise EnvironmentFault(f"H2O's own scorer refuses {version}: {said}")
    with answered.open(newline="") as rows:
        return tuple(float.fromhex(row["p1"]) for row in csv.DictReader(rows))


def _of_another_training(golden: Golden) -> Golden:
    first, *rest = golden.rows
    probability = first.probability + (OFF_BY if first.probability <= 1 - OFF_BY else -OFF_BY)
    return Golden(rows=(first.model_copy(update={"probability": probability}), *rest))


def _of_another_contract() -> str:
    schema = json.loads(contract_schema())
    schema["properties"][ADDED_FEATURE] = {"type": "number"}
    schema["required"] = [*schema.get("required", []), ADDED_FEATURE]
    return json.dumps(schema)
