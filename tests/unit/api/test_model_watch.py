"""Following the pointer: one swap when a model is proved, and nothing but words when it is not."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from services.api import model_watch, proof
from services.api.metrics import Metrics
from services.api.model_watch import ModelWatch
from services.api.proof import ActiveModel, check_contract, check_golden
from services.api.scoring.errors import ModelRefused
from services.api.scoring.mojo import MojoScorer, Score
from services.api.scoring.vector import Row, VectorEncoder
from services.contracts.flights import FEATURES, contract_schema
from services.registry import (
    Candidate,
    Feature,
    Golden,
    GoldenRow,
    ModelCard,
    ModelFiles,
    Pointer,
    Refusal,
    ReplicaState,
    Verdict,
)
from tests.unit.api.test_vector import DOMAINS
from tests.unit.registry.files import GOLDEN_FEATURES, GOLDEN_PROBABILITY, NO_MANIFEST, FileRegistry
from tests.unit.registry.test_files import artifact, card

POINTER = Pointer(name="flight-delay", version="v1", generation=1, manifest=NO_MANIFEST)
GOLDEN = Golden(rows=(GoldenRow(features=GOLDEN_FEATURES, probability=GOLDEN_PROBABILITY),))
CONTRACT = tuple(Feature(name=name, domain=DOMAINS.get(name)) for name in FEATURES)


class Heard:
    """What the replica says to the others."""

    def __init__(self) -> None:
        self.state: ReplicaState | None = None
        self.verdict: Verdict | None = None

    def say(self, state: ReplicaState, verdict: Verdict | None) -> None:
        self.state, self.verdict = state, verdict


class ConstantScorer:
    def __init__(self) -> None:
        self.calls = 0

    def score(self, rows: Sequence[Row]) -> list[Score]:
        self.calls += 1
        return [Score(GOLDEN_PROBABILITY, late=False)] * len(rows)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def contract_card(path: Path, version: str) -> ModelCard:
    return card(path, version=version).model_copy(update={"features": CONTRACT})


def fake_scorer(path: Path, described: ModelCard) -> MojoScorer:
    """Stands in for the JVM, which these tests do without: refuses what is not named right."""
    if path.read_bytes() == b"no mojo":
        raise ModelRefused(f"genmodel cannot load {path}")
    return cast(MojoScorer, ConstantScorer())


@pytest.fixture
def registry(tmp_path: Path) -> FileRegistry:
    return FileRegistry(tmp_path / "models")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def watch(registry: FileRegistry, clock: Clock, heard: Heard, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelWatch]:
    monkeypatch.setattr(proof, "MojoScorer", fake_scorer)
    monkeypatch.setattr(proof, "warm", lambda *_: None)
    monkeypatch.setattr(model_watch, "freeze_heap", lambda: None)
    watch = ModelWatch("api-0", registry, heard, Metrics(), monotonic=clock)
    yield watch
    watch.close()


def publish(registry: FileRegistry, tmp_path: Path, version: str, content: bytes = b"trees") -> None:
    path = artifact(tmp_path, content + version.encode() if content == b"trees" else content)
    registry.publish(path, contract_card(path, version))


def serving(watch: ModelWatch) -> tuple[str, int]:
    assert watch.current is not None
    return watch.current.card.version, watch.current.generation


async def test_the_first_model_appears_and_later_ones_replace_it(
    watch: ModelWatch, registry: FileRegistry, tmp_path: Path
) -> None:
    await watch.check()
    assert watch.current is None
    for version, generation in (("v1", 1), ("v2", 2)):
        publish(registry, tmp_path, version)
        await watch.check()
        assert serving(watch) == (version, generation)
    registry.activate("flight-delay", "v1")
    await watch.check()
    assert serving(watch) == ("v1", 3)


async def test_whoever_scores_hears_of_a_swap(
    registry: FileRegistry, tmp_path: Path, watch: ModelWatch, heard: Heard, clock: Clock
) -> None:
    swaps: list[int] = []
    listening = ModelWatch("api-0", registry, heard, Metrics(), swapped=lambda: swaps.append(1), monotonic=clock)
    await listening.check()
    assert not swaps
    publish(registry, tmp_path, "v1")
    await listening.check()
    await listening.check()
    assert swaps == [1]
    listening.close()


async def test_only_the_first_load_is_rehearsed(
    watch: ModelWatch, registry: FileRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the JVM compiles for a first load is compiled before anything is served."""
    opened: list[str] = []
    really_open = registry.open

    def counted(pointer: Pointer) -> ModelFiles:
        opened.append(pointer.version)
        return really_open(pointer)

    monkeypatch.setattr(registry, "open", counted)
    for version in ("v1", "v2"):
        publish(registry, tmp_path, version)
        await watch.check()
    assert opened == ["v1", "v1", "v2"]


async def test_an_unchanged_pointer_changes_nothing(watch: ModelWatch, registry: FileRegistry, tmp_path: Path) -> None:
    publish(registry, tmp_path, "v1")
    await watch.check()
    before = watch.current
    await watch.check()
    assert watch.current is before


async def test_a_pointer_that_goes_back_is_ignored(watch: ModelWatch, registry: FileRegistry, tmp_path: Path) -> None:
    publish(registry, tmp_path, "v1")
    publish(registry, tmp_path, "v2")
    await watch.check()
    (tmp_path / "models" / "current.json").write_text(
        f'{{"schema":1,"name":"flight-delay","version":"v1","generation":1,"manifest":"{NO_MANIFEST}"}}'
    )
    await watch.check()
    assert serving(watch) == ("v2", 2)


@pytest.mark.parametrize("damage", ["artifact", "card", "pointer", "no mojo"])
async def test_a_bad_model_is_refused_and_the_old_one_serves(
    watch: ModelWatch, registry: FileRegistry, tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    publish(registry, tmp_path, "v1")
    await watch.check()
    publish(registry, tmp_path, "v2", b"no mojo" if damage == "no mojo" else b"trees")
    models = tmp_path / "models"
    if damage == "artifact":
        (models / "flight-delay" / "v2" / "model.zip").write_bytes(b"damaged")
    elif damage == "card":
        (models / "flight-delay" / "v2" / "model.json").write_text("{}")
    elif damage == "pointer":
        (models / "current.json").write_text("{")
    for _ in range(3):
        await watch.check()
    assert serving(watch) == ("v1", 1)
    assert sum("v1 goes on serving" in record.message for record in caplog.records) == 1
    (models / "current.json").write_text(
        f'{{"schema":1,"name":"flight-delay","version":"v2","generation":2,"manifest":"{NO_MANIFEST}"}}'
    )
    publish(registry, tmp_path, "v3")
    await watch.check()
    assert serving(watch) == ("v3", 3)


async def test_a_refused_model_is_tried_again_later(
    watch: ModelWatch, registry: FileRegistry, tmp_path: Path, clock: Clock
) -> None:
    publish(registry, tmp_path, "v1")
    stored = tmp_path / "models" / "flight-delay" / "v1" / "model.zip"
    good = stored.read_bytes()
    stored.write_bytes(b"damaged")
    await watch.check()
    stored.write_bytes(good)
    await watch.check()
    assert watch.current is None
    clock.now += model_watch.RETRY_REFUSED_S
    await watch.check()
    assert serving(watch) == ("v1", 1)


async def test_the_watch_survives_everything_a_registry_can_hold(
    watch: ModelWatch, registry: FileRegistry, tmp_path: Path
) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "current.json").mkdir()
    await watch.check()
    assert watch.current is None
    task = asyncio.create_task(watch.run())
    await asyncio.sleep(0.05)
    assert not task.done()
    task.cancel()


def announce(registry: FileRegistry, tmp_path: Path, version: str, content: bytes = b"trees") -> Candidate:
    """A version that is stored and not pointed to."""
    path = artifact(tmp_path, content + version.encode() if content == b"trees" else content)
    registry.store(path, contract_card(path, version))
    pointer = Pointer(name="flight-delay", version=version, generation=9, manifest=NO_MANIFEST)
    registry.candidate = Candidate(attempt=f"attempt at {version}", pointer=pointer)
    return registry.candidate


async def test_a_candidate_is_prepared_once_and_swapped_when_the_pointer_names_it(
    watch: ModelWatch, registry: FileRegistry, heard: Heard, tmp_path: Path
) -> None:
    publish(registry, tmp_path, "v1")
    candidate = announce(registry, tmp_path, "v2")
    await watch.check()
    assert serving(watch) == ("v1", 1)
    assert heard.verdict == Verdict(attempt=candidate.attempt, refused=None)
    assert heard.state == ReplicaState(replica="api-0", version="v1", generation=1)
    (tmp_path / "models" / "flight-delay" / "v2" / "model.zip").unlink()  # it is loaded already
    registry.point("flight-delay", "v2")
    await watch.check()
    assert serving(watch) == ("v2", 2)
    registry.candidate = None
    await watch.check()
    assert heard.verdict is None


async def test_a_refused_candidate_is_answered_with_the_reason_and_can_be_announced_again(
    watch: ModelWatch, registry: FileRegistry, heard: Heard, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    publish(registry, tmp_path, "v1")
    announce(registry, tmp_path, "v2", b"no mojo")
    for _ in range(3):
        await watch.check()
    assert heard.verdict is not None
    assert heard.verdict.refused is not None
    assert heard.verdict.refused.startswith("genmodel cannot load")
    assert heard.state is not None
    assert heard.state.refused == Refusal(version="v2", reason=heard.verdict.refused)
    assert serving(watch) == ("v1", 1)
    assert sum("candidate v2 is refused, v1 goes on" in record.message for record in caplog.records) == 1
    announce(registry, tmp_path, "v3")
    await watch.check()
    assert heard.verdict == Verdict(attempt="attempt at v3", refused=None)
    registry.point("flight-delay", "v3")
    await watch.check()
    assert heard.state.refused is None


async def test_a_candidate_without_any_model_before_it_is_prepared_too(
    watch: ModelWatch, registry: FileRegistry, heard: Heard, tmp_path: Path
) -> None:
    candidate = announce(registry, tmp_path, "v1")
    await watch.check()
    assert watch.current is None
    assert heard.verdict == Verdict(attempt=candidate.attempt, refused=None)
    assert heard.state == ReplicaState(replica="api-0")


async def test_the_same_version_at_a_higher_generation_is_not_loaded_again(
    watch: ModelWatch, registry: FileRegistry, tmp_path: Path
) -> None:
    publish(registry, tmp_path, "v1")
    await watch.check()
    before = watch.current
    registry.point("flight-delay", "v1")
    await watch.check()
    assert before is not None
    assert watch.current is not None
    assert (watch.current.generation, watch.current.scorer) == (2, before.scorer)


class Elsewhere(FileRegistry):
    """A store whose client raises errors of its own."""

    def open(self, pointer: Pointer) -> ModelFiles:
        raise ZeroDivisionError("in somebody's client")


async def test_whatever_a_load_raises_is_a_refusal(
    watch: ModelWatch, heard: Heard, clock: Clock, tmp_path: Path
) -> None:
    elsewhere = Elsewhere(tmp_path / "models")
    announce(elsewhere, tmp_path, "v1")
    other = ModelWatch("api-1", elsewhere, heard, Metrics(), monotonic=clock)
    await other.check()
    assert heard.verdict is not None
    assert "ZeroDivisionError: in somebody's client" in str(heard.verdict.refused)
    other.close()


@pytest.mark.parametrize(
    ("features", "named"),
    [
        (CONTRACT[1:], "month"),
        ((*CONTRACT, Feature(name="gate")), "gate"),
        (tuple(Feature(name=name) for name in FEATURES), "carrier, dest, origin"),
    ],
)
def test_a_model_of_another_contract_is_refused(tmp_path: Path, features: tuple[Feature, ...], named: str) -> None:
    path = artifact(tmp_path)
    with pytest.raises(ModelRefused, match=f"contract in {named}:"):
        check_contract(files(path, card(path).model_copy(update={"features": features})))
    with pytest.raises(ModelRefused, match="target arr_delay"):
        check_contract(files(path, contract_card(path, "v1").model_copy(update={"target": "arr_delay"})))


def files(path: Path, described: ModelCard, contract: str | None = None) -> ModelFiles:
    return ModelFiles(path, described, GOLDEN, contract_schema() if contract is None else contract)


def altered(change: Callable[[dict[str, Any]], object]) -> str:
    schema = json.loads(contract_schema())
    change(schema)
    return json.dumps(schema)


@pytest.mark.parametrize(
    ("contract", "named"),
    [
        ("{", "its schema, which is no JSON"),
        ("[]", "its schema, which describes no features"),
        (altered(lambda schema: schema["properties"].pop("seats")), "seats"),
        (altered(lambda schema: schema["properties"].update(gate={"type": "string"})), "gate"),
        (altered(lambda schema: schema["properties"]["month"].update(maximum=13)), "month"),
        (altered(lambda schema: schema["required"].append("seats")), "seats"),
        (altered(lambda schema: schema.update(additionalProperties=True)), "its schema"),
    ],
)
def test_a_model_trained_on_another_contract_is_refused(tmp_path: Path, contract: str, named: str) -> None:
    path = artifact(tmp_path)
    with pytest.raises(ModelRefused, match=f"contract in {named}:"):
        check_contract(files(path, contract_card(path, "v1"), contract))


def test_words_about_a_contract_are_no_part_of_it(tmp_path: Path) -> None:
    def retell(schema: dict[str, Any]) -> None:
        schema["description"] = "told otherwise"
        schema["properties"]["month"]["title"] = "The month"

    path = artifact(tmp_path)
    check_contract(files(path, contract_card(path, "v1"), altered(retell)))


@pytest.mark.parametrize(("shift", "refused"), [(0.0, False), (1e-10, False), (1e-8, True), (math.nan, True)])
def test_golden_rows_decide(tmp_path: Path, shift: float, refused: bool) -> None:
    class Shifted:
        def score(self, rows: Sequence[Row]) -> list[Score]:
            return [Score(GOLDEN_PROBABILITY + shift, late=False)] * len(rows)

    described = contract_card(artifact(tmp_path), "v1")
    model = ActiveModel(described, POINTER, cast(MojoScorer, Shifted()), VectorEncoder(CONTRACT), b"")
    with pytest.raises(ModelRefused, match="golden row 0") if refused else contextlib.nullcontext():
        check_golden(model, GOLDEN)


def test_golden_rows_outside_the_contract_are_refused(tmp_path: Path) -> None:
    described = contract_card(artifact(tmp_path), "v1")
    model = ActiveModel(described, POINTER, cast(MojoScorer, ConstantScorer()), VectorEncoder(CONTRACT), b"")
    rows = (GoldenRow(features=GOLDEN_FEATURES | {"month": 13}, probability=GOLDEN_PROBABILITY),)
    with pytest.raises(ModelRefused, match="golden rows break the contract"):
        check_golden(model, Golden(rows=rows))


def test_warming_gives_others_their_turn(tmp_path: Path) -> None:
    pauses: list[float] = []
    described = contract_card(artifact(tmp_path), "v1")
    model = ActiveModel(described, POINTER, cast(MojoScorer, ConstantScorer()), VectorEncoder(CONTRACT), b"")
    proof.warm(model, pauses.append)
    assert len(pauses) == proof.WARM_CALLS / proof.SLICE_CALLS


def test_a_cache_key_belongs_to_one_artifact_and_one_row(tmp_path: Path) -> None:
    path = artifact(tmp_path)
    encoder = VectorEncoder(CONTRACT)
    row = (1.0,) * len(FEATURES)
    models = [
        ActiveModel(card(path), POINTER, cast(MojoScorer, object()), encoder, identity)
        for identity in (b"a/v1/", b"a/v1/", b"a/v2/")
    ]
    keys = [model.cache_key(row) for model in models]
    assert keys[0] == keys[1] != keys[2]
    assert models[0].cache_key((2.0, *row[1:])) != keys[0]
