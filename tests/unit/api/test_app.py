"""The application as a whole, without its servers: every code is described, and a model that fails is told and left."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from services.api import openapi
from services.api.app import OPERATIONS, Replica, create_app
from services.api.openapi import ALWAYS
from services.api.problems import CODES, NOT_ROUTED
from services.api.scoring.vector import VectorEncoder
from services.api.settings import load_settings
from services.breaker import FAILURES, State
from services.contracts.flights import FEATURES
from services.registry import Feature
from tests.unit.api.models import counting_model, until
from tests.unit.api.test_settings import document, environ
from tests.unit.registry.files import GOLDEN_FEATURES

TOKEN = "of-no-server"  # noqa: S105


@pytest.fixture
async def replica(tmp_path: Path) -> AsyncIterator[Replica]:
    """Nothing of it runs: no shard, no cache, no JVM."""
    for name in ("token", "admin_token", "redis"):
        (tmp_path / name).write_text(TOKEN)
    replica = Replica(load_settings(environ(tmp_path, document(tmp_path))))
    yield replica
    replica.batcher.close()
    replica.models.close()
    replica.reloader.close()


@pytest.fixture
async def http(replica: Replica) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=create_app(replica), raise_app_exceptions=False)
    headers = {"authorization": f"Bearer {TOKEN}"}
    async with httpx.AsyncClient(transport=transport, base_url="http://replica", headers=headers) as http:
        yield http


def test_the_operations_describe_every_code_and_no_other() -> None:
    """But for what is answered where there is no operation."""
    described = {code for operation in OPERATIONS for code in operation.codes}
    assert described | {*ALWAYS, *NOT_ROUTED.values()} == set(CODES)
    paths = openapi.document("test", "1", OPERATIONS)["paths"]
    for operation in OPERATIONS:
        responses = paths[operation.path][operation.method]["responses"]
        for code in (*ALWAYS, *operation.codes):
            assert f"`{code}`" in responses[str(int(CODES[code]))]["description"]


async def test_a_model_that_keeps_failing_is_told_left_and_comes_back(
    replica: Replica, http: httpx.AsyncClient, tmp_path: Path
) -> None:
    model, scorer = counting_model(tmp_path)
    replica.models.current = replace(model, encoder=VectorEncoder([Feature(name=name) for name in FEATURES[:1]]))
    replica.shards.obstacle = None

    async def predict() -> tuple[int, str]:
        answer = await http.post("/v1/predict", json={"features": GOLDEN_FEATURES})
        return answer.status_code, answer.json().get("code", "")

    assert (await predict(), (await http.get("/readyz")).status_code) == ((200, ""), 200)
    scorer.failure = RuntimeError("broken trees")
    assert [await predict() for _ in range(FAILURES)] == [(503, "scoring_failed")] * FAILURES
    assert await predict() == (503, "scorer_unavailable")
    unready = await http.get("/readyz")
    assert (unready.status_code, unready.json()["reason"]) == (503, "the model fails")
    scorer.failure = None
    await until(lambda: replica.batcher.breaker.state is State.CLOSED)  # by the replica's own probes: nobody asks
    assert (await predict(), (await http.get("/readyz")).status_code) == ((200, ""), 200)
