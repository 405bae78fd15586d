"""Two real replicas through reloads: under load, refused, frozen, killed, with no etcd or store, twenty in a row."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import httpx
import pytest

from services.api.proof import WARM_CALLS
from services.api.scoring.jvm import start_jvm
from services.api.scoring.mojo import MojoScorer
from services.api.scoring.vector import VectorEncoder
from services.contracts.flights import MODEL_NAME, FlightFeatures
from services.h2o.trained import TrainedModel
from services.registry import reload as reloading
from services.registry.errors import ReloadInProgress
from services.registry.reload import CandidateRefused
from tests.integration.api.pair import CLIENTS, Load, Pair, assert_all_serve
from tests.integration.api.platform import HEAP_MB, Platform, Replica
from tests.integration.api.test_replica import FLIGHT
from tests.integration.api.waiting import wait_until
from tests.integration.registry.models import WHY

pytestmark = pytest.mark.integration

REQUESTS = 1000
RELOADS = 20
SETTLED = 5
"""Reloads after which every lazily made thing exists; from then on memory must stay."""
GROWTH_MB = 12
MB = 1024 * 1024


def own_scores(model: TrainedModel, genmodel_jar: Path) -> list[float]:
    """What the artifact says of its golden rows, to the last bit; its trainer said the same."""
    start_jvm(genmodel_jar, HEAP_MB)
    encoder = VectorEncoder(model.card.features)
    rows = [encoder.row(FlightFeatures.model_validate(row.features)) for row in model.golden.rows]
    scores = [score.probability for score in MojoScorer(model.model_zip, model.card).score(rows)]
    assert scores == pytest.approx([row.probability for row in model.golden.rows], rel=0, abs=1e-9)
    return scores


def test_three_reloads_under_load_lose_nothing_and_mix_nothing(
    pair: Pair, trained: Mapping[str, TrainedModel], genmodel_jar: Path
) -> None:
    expected = {trees: own_scores(trained[trees], genmodel_jar) for trees in ("v1", "v2")}
    assert expected["v1"] != expected["v2"]
    versions = [pair.fresh(trees) for trees in ("v2", "v1", "v2")]
    load = Load(pair, [dict(row.features) for row in trained["v1"].golden.rows])
    decided: list[float] = []
    try:
        for number, version in enumerate(versions):
            assert_all_serve(pair, pair.post(f"api-{number % 2}", version=version), version)
            decided.append(time.monotonic())
            wait_until(lambda enough=(number + 1) * REQUESTS // 3: len(load.answers) >= enough)
        wait_until(lambda: len(load.answers) >= REQUESTS)
    finally:
        load.close()
    assert {answer.status for answer in load.answers} == {200}
    wrong = [
        answer
        for answer in load.answers
        if answer.body["probability"] != expected[answer.body["model"]["version"][-2:]][answer.row]
    ]
    assert wrong == []
    for replica in pair.replicas:
        answers = sorted((each for each in load.answers if each.replica == replica), key=lambda each: each.began)
        assert len({answer.body["model"]["generation"] for answer in answers}) == 4
        for earlier, later in zip(answers, answers[CLIENTS:], strict=False):  # those between may overlap
            if earlier.ended < later.began:
                assert earlier.body["model"]["generation"] <= later.body["model"]["generation"]
    newest = [answer for answer in load.answers if answer.began > decided[-1]]
    assert {answer.body["model"]["version"] for answer in newest} == {versions[-1]}


def test_a_rollback_goes_the_same_way_and_the_generation_grows(pair: Pair) -> None:
    [(before, generation)] = set(pair.serving().values())
    after = pair.fresh()
    assert_all_serve(pair, pair.post("api-0", version=after), after)
    answer = pair.post("api-1", rollback=True)
    assert_all_serve(pair, answer, before)
    assert answer.json()["model"]["generation"] == generation + 2


def test_only_the_administrator_reloads_and_only_what_is_legal(pair: Pair) -> None:
    replica = pair.replicas["api-0"]
    refused = replica.http.post("/v1/admin/reload-model", json={"version": "v1", "reason": "a client"})
    assert (refused.status_code, refused.json()["code"]) == (401, "unauthorized")
    assert httpx.get(f"{replica.url}/v1/models/current").status_code == 401
    [(serving, _)] = set(pair.serving().values())
    for body, status, code in (
        ({"version": "v0"}, 404, "unknown_version"),
        ({"version": serving}, 409, "illegal_transition"),
        ({"version": "v1", "rollback": True}, 422, "invalid_request"),
        ({"version": "../v1"}, 422, "invalid_request"),
        ({}, 422, "invalid_request"),
    ):
        answer = pair.post("api-0", **body)
        assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text


def test_a_corrupt_artifact_is_refused_by_each_replica_and_a_restart_serves_the_old_one(pair: Pair) -> None:
    before = pair.serving()
    version = pair.fresh()
    pair.registry.registry.stage(MODEL_NAME, version, WHY)
    card = pair.registry.stored(version, "card")
    whole = card.read_bytes()
    card.write_bytes(whole[:-1])
    answer = pair.post("api-0", version=version)
    assert (answer.status_code, answer.json()["code"]) == (422, "candidate_refused")
    states = answer.json()["replicas"]
    assert [(each["replica"], each["outcome"]) for each in states] == [("api-0", "refused"), ("api-1", "refused")]
    assert all("has sha256" in each["reason"] for each in states)
    assert pair.serving() == before
    for name, replica in pair.replicas.items():
        assert pair.current(name)["refused"]["version"] == version
        assert replica.metric('breakwater_api_candidates_total{outcome="refused"}') == 1
    wait_until(lambda: all(each["refused"] is not None for each in pair.current("api-1")["replicas"]))
    assert pair.replicas["api-1"].end() == 0
    pair.start("api-1").wait_for("/readyz")
    assert pair.serving() == before
    card.write_bytes(whole)
    wait_until(lambda: len(pair.current("api-0")["replicas"]) == 2)
    assert_all_serve(pair, pair.post("api-0", version=version), version)  # mended, and asked again
    assert pair.current("api-0")["refused"] is None


def test_a_store_that_is_away_or_hangs_is_a_refusal_and_holds_nobody_up(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = pair.serving()
    version = pair.fresh()
    pair.registry.registry.stage(MODEL_NAME, version, WHY)
    away = pair.registry.artifacts.rename(pair.registry.artifacts.with_name("away"))
    try:
        answer = pair.post("api-1", version=version)
    finally:
        away.rename(pair.registry.artifacts)
    assert (answer.status_code, answer.json()["code"]) == (422, "candidate_refused")
    assert all("has no artifact" in each["reason"] for each in answer.json()["replicas"])
    monkeypatch.setattr(reloading, "PREPARE_S", 1.5)
    card = pair.registry.stored(version, "card")
    aside = card.rename(card.with_name("aside"))
    os.mkfifo(card)  # whoever opens it waits for a writer
    with pytest.raises(CandidateRefused, match="api-0: lives, but did not answer"):
        pair.registry.promote(version)
    assert pair.serving() == before
    assert pair.replicas["api-0"].predict(features=FLIGHT).status_code == 200
    assert pair.current("api-0")["candidate"]["state"] == "preparing"
    assert pair.replicas["api-1"].end() == 0, "a load that hangs must not keep a replica from ending"
    with card.open("wb") as hanging:
        hanging.write(b"nothing")
    card.unlink()
    aside.rename(card)
    pair.start("api-1").wait_for("/readyz")
    wait_until(lambda: len(pair.current("api-0")["replicas"]) == 2)
    assert_all_serve(pair, pair.post("api-0", version=version), version)


def test_a_frozen_replica_holds_a_reload_up_and_a_second_reload_is_refused(pair: Pair) -> None:
    frozen = pair.replicas["api-1"].process
    assert frozen is not None
    first, second = pair.fresh("v1"), pair.fresh()
    answers: list[httpx.Response] = []
    frozen.send_signal(signal.SIGSTOP)
    try:
        leading = threading.Thread(target=lambda: answers.append(pair.post("api-0", version=first)))
        leading.start()
        wait_until(lambda: pair.current("api-0")["candidate"] == {"version": first, "state": "prepared"})
        refused = pair.post("api-0", version=second)
        assert (refused.status_code, refused.json()["code"]) == (409, "reload_in_progress")
        with pytest.raises(ReloadInProgress):
            pair.registry.promote(second)  # as the command line does
    finally:
        frozen.send_signal(signal.SIGCONT)
    leading.join()
    assert_all_serve(pair, answers[0], first)
    assert_all_serve(pair, pair.post("api-1", version=second), second)


def test_a_replica_that_is_killed_meanwhile_is_not_waited_for_and_finds_the_new_model(pair: Pair) -> None:
    victim = pair.replicas["api-1"].process
    assert victim is not None
    version = pair.fresh("v1")
    answers: list[httpx.Response] = []
    victim.send_signal(signal.SIGSTOP)
    leading = threading.Thread(target=lambda: answers.append(pair.post("api-0", version=version)))
    leading.start()
    wait_until(lambda: pair.current("api-0")["candidate"] == {"version": version, "state": "prepared"})
    victim.kill()
    victim.wait()
    leading.join()
    assert [each["replica"] for each in answers[0].json()["replicas"]] == ["api-0"]
    pair.start("api-1").wait_for("/readyz")
    assert len(set(pair.serving().values())) == 1
    wait_until(lambda: len(pair.current("api-0")["replicas"]) == 2)


def test_without_etcd_nothing_is_reloaded_and_everything_serves(pair: Pair, platform: Platform) -> None:
    before = pair.serving()
    version = pair.fresh()
    platform.etcd.kill(0)
    try:
        answer = pair.post("api-0", version=version)
        assert (answer.status_code, answer.json()["code"]) == (503, "etcd_unavailable")
        assert pair.serving() == before
        assert pair.replicas["api-1"].predict(features=FLIGHT).status_code == 200
    finally:
        platform.etcd.start(0)
        platform.etcd.wait_ready()
    wait_until(lambda: len(pair.current("api-0")["replicas"]) == 2)
    assert_all_serve(pair, pair.post("api-0", version=version), version)


def rss_mb(replica: Replica) -> float:
    assert replica.process is not None
    [line] = [
        line
        for line in Path(f"/proc/{replica.process.pid}/status").read_text().splitlines()
        if line.startswith("VmRSS:")
    ]
    return int(line.split()[1]) / 1024


def test_memory_does_not_grow_over_twenty_reloads(pair: Pair) -> None:
    resident: dict[str, list[float]] = {name: [] for name in pair.replicas}
    for number in range(RELOADS):
        version = pair.fresh("v1" if number % 2 else "v2")
        assert_all_serve(pair, pair.post("api-0", version=version), version)
        for name, replica in pair.replicas.items():
            replica.predict(features=FLIGHT)
            resident[name].append(rss_mb(replica))
            assert replica.metric("breakwater_api_jvm_heap_used_bytes") < HEAP_MB * MB
            assert replica.metric("breakwater_api_model_rehearsals") >= WARM_CALLS
    for measured in resident.values():
        assert max(measured[SETTLED:]) - measured[SETTLED] < GROWTH_MB, measured
