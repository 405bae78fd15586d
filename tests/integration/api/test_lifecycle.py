"""How a replica starts with nothing around it, and how it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Mapping
from pathlib import Path

import httpx
import pytest

from services.api.server import DRAIN_S
from services.contracts.slots import slot_of
from services.featurestore.slots import publish_slot_map
from services.h2o.train import TrainedModel
from tests.integration.api.platform import DATABASE, END_S, Platform, Replica
from tests.integration.api.test_replica import FLIGHT, key_of, write_of
from tests.integration.api.waiting import wait_until, waiting_for_locks

pytestmark = pytest.mark.integration

NOWHERE = "http://127.0.0.1:1"
"""An address that refuses: nothing listens on port 1 of the tests' machine."""


@pytest.fixture
def published(platform: Platform, trained: Mapping[str, TrainedModel]) -> None:
    platform.registry.publish(trained["v1"])


@pytest.mark.usefixtures("published")
def test_sigterm_leaves_the_rotation_before_it_ends(platform: Platform) -> None:
    """A caller that ignores readiness is served for as long as the edge may take to notice."""
    with Replica(platform) as replica:
        replica.wait_for("/readyz")
        statuses: list[int] = []
        refused: list[float] = []

        def ask() -> None:
            """Over a new connection each time, until there is none."""
            while not refused:
                try:
                    answer = httpx.post(
                        f"{replica.url}/v1/predict", json={"features": FLIGHT}, headers=replica.http.headers
                    )
                except httpx.TransportError:
                    refused.append(time.monotonic())
                else:
                    statuses.append(answer.status_code)

        caller = threading.Thread(target=ask)
        caller.start()
        wait_until(lambda: len(statuses) > 3)
        assert replica.process is not None
        signalled = time.monotonic()
        replica.process.send_signal(signal.SIGTERM)
        unready = replica.wait_for("/readyz", 503)
        assert unready.json()["reason"] == "draining"
        assert unready.headers["connection"] == "close"
        assert replica.process.wait(timeout=END_S) == 0
        caller.join()
        assert refused[0] - signalled >= DRAIN_S
        assert set(statuses) == {200}
        assert not [line for line in replica.lines() if line["level"] not in {"info", "warning"}]


@pytest.mark.usefixtures("published")
def test_a_write_in_progress_is_finished_before_the_end(platform: Platform) -> None:
    write = write_of(0)
    server = platform.postgres[0]
    with Replica(platform) as replica, server.superuser(DATABASE) as holder, server.superuser(DATABASE) as onlooker:
        replica.wait_for("/readyz")
        answers: list[httpx.Response] = []
        caller = threading.Thread(target=lambda: answers.append(replica.http.post("/v1/features", json=write)))
        with holder.transaction():
            slot = slot_of(uuid.UUID(write["entity_id"]))
            holder.execute("select 1 from owned_slots where slot = %s for update", [slot])
            caller.start()
            wait_until(lambda: waiting_for_locks(onlooker) > 0)
            assert replica.process is not None
            replica.process.send_signal(signal.SIGTERM)
            time.sleep(1.5)  # the listener has closed by now
        assert replica.process.wait(timeout=END_S) == 0
        caller.join()
    assert [answer.status_code for answer in answers] == [200]


@pytest.mark.usefixtures("published")
def test_a_second_signal_shortens_the_wait(platform: Platform) -> None:
    with Replica(platform) as replica:
        replica.wait_for("/readyz")
        assert replica.process is not None
        replica.process.send_signal(signal.SIGTERM)
        replica.wait_for("/readyz", 503)
        assert replica.end(signal.SIGINT) == 0


def test_it_starts_before_everything_else_and_finds_it(platform: Platform, trained: Mapping[str, TrainedModel]) -> None:
    """Redis is down and etcd holds no map for this environment yet."""
    later = platform.publisher("later")
    later.publish(trained["v1"])
    platform.redis.kill()
    try:
        with Replica(platform, **later.settings(platform.models_dir)) as replica:
            unready = replica.wait_for("/readyz", 503)
            assert unready.json()["reason"] == "no slot map"
            assert replica.predict(features=FLIGHT).status_code == 200
            refused = replica.http.post("/v1/features", json=write_of(0))
            assert (refused.status_code, refused.json()["code"]) == (503, "slot_map_unavailable")
            publish_slot_map(platform.etcd_client, "later", platform.shards)
            replica.wait_for("/readyz")
            assert replica.http.post("/v1/features", json=write_of(0)).status_code == 200
            platform.redis.start()
            wait_until(lambda: replica.metric('breakwater_api_breaker_state{dependency="redis"}') == 0)
    finally:
        platform.redis.kill()
        platform.redis.start()


@pytest.mark.usefixtures("published")
def test_it_starts_and_ends_without_etcd_and_with_a_dead_shard(platform: Platform) -> None:
    with Replica(platform, etcd=[NOWHERE]) as replica:
        assert replica.predict(features=FLIGHT).status_code == 200
        assert replica.end() == 0
    platform.postgres[1].kill()
    try:
        with Replica(platform) as replica:
            replica.wait_for("/readyz")
            assert replica.http.post("/v1/features", json=write_of(0)).status_code == 200
            assert replica.end() == 0
    finally:
        platform.postgres[1].start()


@pytest.mark.usefixtures("published")
def test_a_shard_with_a_foreign_schema_is_not_served_and_makes_it_unready(platform: Platform) -> None:
    on_it, beside_it = write_of(1), write_of(0)
    with platform.postgres[1].superuser(DATABASE) as connection:
        [revision] = connection.execute("select version_num from alembic_version").fetchone() or [None]
        connection.execute("update alembic_version set version_num = 'foreign'")
        try:
            with Replica(platform) as replica:
                wait_until(lambda: "shard 1 is at foreign" in replica.http.get("/readyz").text)
                for refused in (replica.http.post("/v1/features", json=on_it), replica.predict(**key_of(on_it))):
                    assert (refused.status_code, refused.json()["code"]) == (503, "schema_skew")
                    assert "shard 1 is at foreign" in refused.json()["detail"]
                assert replica.http.post("/v1/features", json=beside_it).status_code == 200
                assert replica.predict(features=FLIGHT).status_code == 200
                connection.execute("update alembic_version set version_num = %s", [revision])
                replica.wait_for("/readyz")
                assert replica.http.post("/v1/features", json=on_it).status_code == 200
        finally:
            connection.execute("update alembic_version set version_num = %s", [revision])


def test_a_wrong_configuration_is_one_line_and_exit_2(tmp_path: Path) -> None:
    config = tmp_path / "api.json"
    config.write_text('{"replica": "api-0"}')
    done = subprocess.run(
        [sys.executable, "-m", "services.api"],
        env=os.environ | {"BREAKWATER_API_CONFIG": str(config)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "is not a valid configuration: environment: Field required" in done.stderr
    assert "Traceback" not in done.stderr
