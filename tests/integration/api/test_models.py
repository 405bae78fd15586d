"""Models come and go under a running replica, and a bad one never serves."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from services.api.scoring.batcher import MAX_BATCH, MicroBatcher
from services.api.scoring.errors import ModelRefused
from services.api.scoring.jvm import start_jvm
from services.api.scoring.mojo import MojoScorer, Score
from services.api.scoring.vector import Row, VectorEncoder
from services.contracts.flights import MODEL_NAME, FlightFeatures, contract_schema
from services.featurestore.slots import publish_slot_map
from services.h2o.train import TrainedModel
from services.registry import Feature, Golden, sha256_of
from services.registry.announced import pointer_key
from services.registry.reload import CandidateRefused
from tests.integration.api.platform import HEAP_MB, Platform, Replica
from tests.integration.api.publishing import Publisher
from tests.integration.api.test_replica import FLIGHT, new_flight
from tests.integration.api.waiting import wait_until

pytestmark = pytest.mark.integration

BATCHES = 500


_numbers = itertools.count()


@pytest.fixture
def registry(platform: Platform) -> Publisher:
    environment = f"models-{next(_numbers)}"
    publish_slot_map(platform.etcd_client, environment, platform.shards)
    return platform.publisher(environment)


@pytest.fixture
def replica(platform: Platform, registry: Publisher, tmp_path: Path) -> Iterator[Replica]:
    """A replica with a registry of its own, empty at first."""
    with Replica(platform, **registry.settings(tmp_path)) as replica:
        yield replica


def generation(replica: Replica) -> int:
    return int(replica.metric("breakwater_api_model_generation"))


def golden(trained: TrainedModel, genmodel_jar: Path) -> float:
    """What the model itself says about FLIGHT."""
    start_jvm(genmodel_jar, HEAP_MB)
    row = VectorEncoder(trained.card.features).row(FlightFeatures(**FLIGHT))
    return MojoScorer(trained.model_zip, trained.card).score([row])[0].probability


def test_models_appear_and_change_without_a_restart(
    replica: Replica, registry: Publisher, trained: Mapping[str, TrainedModel], genmodel_jar: Path
) -> None:
    unready = replica.http.get("/readyz")
    assert (unready.status_code, unready.json()["reason"]) == (503, "no model")
    refused = replica.predict(features=FLIGHT)
    assert (refused.status_code, refused.json()["code"]) == (503, "no_model")
    for number, version in enumerate(("v1", "v2"), start=1):
        registry.publish(trained[version])
        wait_until(lambda expected=number: generation(replica) == expected)
        answers = [replica.predict(features=FLIGHT).json() for _ in range(2)]
        assert {answer["probability"] for answer in answers} == {golden(trained[version], genmodel_jar)}
        assert answers[0]["model"] == {"name": "flight-delay", "version": version, "generation": number}
    replica.wait_for("/readyz")
    registry.rollback()
    wait_until(lambda: generation(replica) == 3)
    rolled_back = replica.predict(features=FLIGHT).json()
    assert rolled_back["probability"] == golden(trained["v1"], genmodel_jar)
    assert rolled_back["source"] == "cache"


def test_answers_never_mix_models_while_one_replaces_the_other(
    replica: Replica, registry: Publisher, trained: Mapping[str, TrainedModel], genmodel_jar: Path
) -> None:
    registry.publish(trained["v1"])
    replica.wait_for("/readyz")
    expected = {version: golden(trained[version], genmodel_jar) for version in trained}
    registry.publish(trained["v2"])
    seen: list[int] = []
    while not seen or seen[-1] == 1:
        answer = replica.predict(features=FLIGHT)
        assert answer.status_code == 200
        model = answer.json()["model"]
        assert answer.json()["probability"] == expected[model["version"]]
        seen.append(model["generation"])
    assert seen == sorted(seen)


def test_bad_models_are_refused_before_they_are_published_and_the_old_one_serves(
    replica: Replica, registry: Publisher, trained: Mapping[str, TrainedModel], tmp_path: Path
) -> None:
    registry.publish(trained["v1"])
    replica.wait_for("/readyz")
    no_mojo = tmp_path / "no-mojo.zip"
    no_mojo.write_bytes(b"no mojo at all")
    base = trained["v2"]
    foreign = tuple(Feature(name="gate") if feature.name == "seats" else feature for feature in base.card.features)
    other_levels = tuple(
        feature.model_copy(update={"domain": ("LGA", "JFK", "EWR")}) if feature.name == "origin" else feature
        for feature in base.card.features
    )

    def changed(version: str, **changes: object) -> TrainedModel:
        return replace(base, card=base.card.model_copy(update={"version": version, **changes}))

    shifted = Golden(rows=tuple(row.model_copy(update={"probability": 0.5}) for row in base.golden.rows))
    half_open = json.loads(contract_schema())
    half_open["properties"]["distance"]["maximum"] = 10_000
    candidates = [
        (replace(changed("no-mojo", sha256=sha256_of(no_mojo)), model_zip=no_mojo), None, "cannot load"),
        (changed("foreign", features=foreign), None, "gate, seats"),
        (changed("levels", features=other_levels), None, "feature origin"),
        (changed("other-contract"), json.dumps(half_open), "feature contract in distance"),
        (replace(changed("other-trees"), golden=shifted), None, "golden row 0 scores"),
    ]
    for number, (model, contract, reason) in enumerate(candidates, start=1):
        registry.register(model, contract)
        with pytest.raises(CandidateRefused, match=reason) as refused:
            registry.promote(model.card.version)
        [outcome] = refused.value.replicas
        assert (outcome.replica, outcome.outcome, outcome.generation) == ("api-0", "refused", 1)
        assert registry.registry.version(MODEL_NAME, model.card.version).stage == "staging"
        assert replica.metric('breakwater_api_candidates_total{outcome="refused"}') == number
        told = replica.http.get("/v1/models/current").json()
        assert told["model"]["version"] == "v1"
        assert told["refused"]["version"] == model.card.version
        assert reason in told["refused"]["reason"]
    assert replica.metric("breakwater_api_models_refused_total") == 0
    assert replica.predict(features=new_flight()).json()["model"] == {
        "name": MODEL_NAME,
        "version": "v1",
        "generation": 1,
    }


def test_a_pointer_that_nobody_prepared_is_proved_all_the_same(
    replica: Replica, registry: Publisher, trained: Mapping[str, TrainedModel]
) -> None:
    """By hand, or by a repair after the artifact was lost: the replica refuses for itself and serves the old one."""
    first = registry.publish(trained["v1"])
    registry.publish(trained["v2"])
    replica.wait_for("/readyz")
    torn = registry.stored("v1", "mojo")
    torn.write_bytes(torn.read_bytes()[:-1])
    pointer = first.model_copy(update={"generation": 3})
    registry.etcd.put(pointer_key(registry.environment, pointer.name), pointer.to_json())
    wait_until(lambda: replica.metric("breakwater_api_models_refused_total") == 1)
    assert "has sha256" in replica.http.get("/v1/models/current").json()["refused"]["reason"]
    answer = replica.predict(features=new_flight())
    assert (answer.status_code, answer.json()["model"]["version"]) == (200, "v2")
    assert replica.http.get("/readyz").status_code == 200


def test_an_artifact_with_fewer_features_than_its_card_is_refused(
    trained: Mapping[str, TrainedModel], genmodel_jar: Path
) -> None:
    start_jvm(genmodel_jar, HEAP_MB)
    card = trained["v1"].card
    longer = card.model_copy(update={"features": (*card.features, Feature(name="gate"))})
    with pytest.raises(ModelRefused, match="has 16 features, its card 17"):
        MojoScorer(trained["v1"].model_zip, longer)


async def test_the_loop_turns_while_the_model_scores(trained: Mapping[str, TrainedModel], genmodel_jar: Path) -> None:
    """Many full batches in one go: in the worker they take a while, the loop's longest pause is a fraction of it."""
    start_jvm(genmodel_jar, HEAP_MB)
    model = trained["v1"]
    scorer = MojoScorer(model.model_zip, model.card)
    row = VectorEncoder(model.card.features).row(FlightFeatures(**FLIGHT))
    batcher = MicroBatcher()

    class Bulk:
        def score(self, rows: Sequence[Row]) -> list[Score]:
            for _ in range(BATCHES):
                scores = scorer.score([*rows] * MAX_BATCH)
            return scores[:1]

    try:
        started = turned = time.monotonic()
        future = batcher.score(Bulk(), row)
        longest = 0.0
        while not future.done():
            await asyncio.sleep(0.001)
            now = time.monotonic()
            longest, turned = max(longest, now - turned), now
        assert longest < (turned - started) / 2
    finally:
        batcher.close()
