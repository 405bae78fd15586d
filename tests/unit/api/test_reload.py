"""The reload's route: who may, what is understood, and a stable code for everything that a registry can answer."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import cast

import httpx
import pytest
from fastapi import FastAPI
from starlette.routing import Route

from services.api import problems
from services.api.auth import BearerAuth
from services.api.problems import CODES
from services.api.reload import OPERATION, REGISTRY_PROBLEMS, Reloader
from services.coordination.etcd import EtcdUnavailable
from services.featurestore.errors import CommitUnknown, ShardUnavailable
from services.registry import ArtifactCorrupt, Pointer
from services.registry.errors import (
    IllegalTransition,
    PointerPending,
    ReloadInProgress,
    ReloadInterrupted,
    StoreUnavailable,
    UnknownVersion,
)
from services.registry.registry import ModelRegistry, Why
from services.registry.reload import CandidateRefused, Reload, ReplicaOutcome
from tests.unit.api.models import until

POINTER = Pointer(name="flight-delay", version="v2", generation=2, manifest="0" * 64)
SERVES = ReplicaOutcome("api-0", "serves", "v2", 2)
REFUSED = ReplicaOutcome("api-0", "refused", "v1", 1, "its trees are upside down")


class Scripted:
    """Stands in for the registry: does what it is told, and remembers who asked for what."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.failure: Exception | None = None
        self.gate = threading.Event()
        self.gate.set()

    def bring_into_production(self, model: str, version: str, why: Why) -> Reload:
        return self._answer(version, why)

    def rollback(self, model: str, why: Why) -> Reload:
        return self._answer("back", why)

    def _answer(self, what: str, why: Why) -> Reload:
        self.asked.append((what, f"{why.actor}: {why.reason}"))
        assert self.gate.wait(10)
        if self.failure is not None:
            raise self.failure
        return Reload(POINTER, (SERVES,))


@pytest.fixture
def registry() -> Scripted:
    return Scripted()


@pytest.fixture
async def http(registry: Scripted) -> AsyncIterator[httpx.AsyncClient]:
    reloader = Reloader(BearerAuth("admin"), "flight-delay", "api-0", lambda _: cast(ModelRegistry, registry))
    app = FastAPI()
    problems.install(app)
    app.router.routes.append(Route(OPERATION.path, reloader.endpoint, methods=["POST"]))
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    headers = {"authorization": "Bearer admin"}
    async with httpx.AsyncClient(transport=transport, base_url="http://replica", headers=headers) as client:
        yield client
    reloader.close()


async def test_it_answers_with_the_state_of_each_replica(http: httpx.AsyncClient, registry: Scripted) -> None:
    answer = await http.post(OPERATION.path, json={"version": "v2", "reason": "better"})
    assert answer.json() == {
        "model": {"name": "flight-delay", "version": "v2", "generation": 2},
        "replicas": [{"replica": "api-0", "outcome": "serves", "version": "v2", "generation": 2, "reason": None}],
    }
    assert (await http.post(OPERATION.path, json={"rollback": True, "reason": "worse"})).status_code == 200
    assert registry.asked == [("v2", "admin token, by api-0: better"), ("back", "admin token, by api-0: worse")]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"version": "v2"},
        {"version": "v2", "reason": ""},
        {"version": "v2", "reason": "a\x00b"},
        {"version": "../v2", "reason": "r"},
        {"version": "v2", "rollback": True, "reason": "r"},
        {"rollback": False, "reason": "r"},
    ],
)
async def test_what_is_not_understood_reaches_nobody(
    http: httpx.AsyncClient, registry: Scripted, body: dict[str, object]
) -> None:
    answer = await http.post(OPERATION.path, json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    unknown = await http.post(OPERATION.path, json={"version": "v2", "reason": "r"}, headers={"authorization": "no"})
    assert unknown.status_code == 401
    assert registry.asked == []


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (UnknownVersion("none"), "unknown_version"),
        (IllegalTransition("no"), "illegal_transition"),
        (ReloadInProgress("busy"), "reload_in_progress"),
        (CandidateRefused(POINTER, [REFUSED]), "candidate_refused"),
        (ArtifactCorrupt("torn"), "artifact_corrupt"),
        (StoreUnavailable("away"), "artifact_store_unavailable"),
        (ReloadInterrupted("ended"), "reload_interrupted"),
        (PointerPending("decided"), "pointer_pending"),
        (EtcdUnavailable("away"), "etcd_unavailable"),
        (ShardUnavailable(0, "down"), "shard_unavailable"),
        (CommitUnknown(0, "no answer"), "commit_unknown"),
    ],
)
async def test_every_refusal_has_its_code(
    http: httpx.AsyncClient, registry: Scripted, failure: Exception, code: str
) -> None:
    registry.failure = failure
    answer = await http.post(OPERATION.path, json={"version": "v2", "reason": "r"})
    assert (answer.status_code, answer.json()["code"]) == (CODES[code], code)
    assert code in OPERATION.codes
    assert ("replicas" in answer.json()) is (code == "candidate_refused")


async def test_a_second_reload_on_the_same_replica_is_refused_at_once(
    http: httpx.AsyncClient, registry: Scripted
) -> None:
    registry.gate.clear()
    first = asyncio.create_task(http.post(OPERATION.path, json={"version": "v2", "reason": "r"}))
    await until(lambda: registry.asked)
    second = await http.post(OPERATION.path, json={"version": "v3", "reason": "r"})
    assert second.json()["code"] == "reload_in_progress"
    registry.gate.set()
    assert (await first).status_code == 200
    assert (await http.post(OPERATION.path, json={"version": "v3", "reason": "r"})).status_code == 200


def test_the_route_promises_every_code_of_the_registry() -> None:
    assert set(REGISTRY_PROBLEMS.values()) <= set(OPERATION.codes)
