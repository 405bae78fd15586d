"""Two real replicas with a registry of their own, and golden rows asked of them on a schedule."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from services.contracts.flights import MODEL_NAME
from services.featurestore.slots import publish_slot_map
from services.h2o.trained import TrainedModel
from tests.integration.api.platform import Platform, Replica
from tests.integration.api.publishing import renamed

RATE = 100
CLIENTS = 8


class Pair:
    """api-0 and api-1 with a registry of their own; v1 serves at first. Versions are used once each."""

    def __init__(
        self, platform: Platform, directory: Path, trained: Mapping[str, TrainedModel], environment: str
    ) -> None:
        self.platform = platform
        self.trained = trained
        self.environment = environment
        publish_slot_map(platform.etcd_client, environment, platform.shards)
        self.registry = platform.publisher(environment)
        self._settings = self.registry.settings(directory)
        self._numbers = iter(range(3, 1000))
        self.replicas: dict[str, Replica] = {}

    def start(self, name: str) -> Replica:
        self.replicas[name] = Replica(self.platform, **self._settings, replica=name)
        return self.replicas[name].__enter__()

    def close(self) -> None:
        for replica in self.replicas.values():
            replica.__exit__()

    def fresh(self, trees: str = "v2") -> str:
        """A newly registered version with the trees of v1 or v2."""
        version = f"n{next(self._numbers)}-{trees}"
        self.registry.register(renamed(self.trained[trees], version))
        return version

    def post(self, name: str, **body: object) -> httpx.Response:
        return httpx.post(
            f"{self.replicas[name].url}/v1/admin/reload-model",
            json={"reason": "a test"} | body,
            headers={"authorization": f"Bearer {self.platform.admin_token}"},
            timeout=30.0,
        )

    def serving(self) -> dict[str, tuple[str, int]]:
        found = {}
        for name, replica in self.replicas.items():
            model = replica.http.get("/v1/models/current").json()["model"]
            found[name] = (model["version"], model["generation"])
        return found

    def current(self, name: str) -> dict[str, Any]:
        return dict(self.replicas[name].http.get("/v1/models/current").json())


def assert_all_serve(pair: Pair, answer: httpx.Response, version: str) -> None:
    assert answer.status_code == 200, answer.text
    reloaded = answer.json()
    generation = reloaded["model"]["generation"]
    assert reloaded["model"] == {"name": MODEL_NAME, "version": version, "generation": generation}
    assert reloaded["replicas"] == [
        {"replica": name, "outcome": "serves", "version": version, "generation": generation, "reason": None}
        for name in ("api-0", "api-1")
    ]
    assert pair.serving() == {"api-0": (version, generation), "api-1": (version, generation)}


@dataclass(frozen=True)
class Answer:
    began: float
    ended: float
    status: int
    replica: str
    row: int
    body: dict[str, Any]


class Load:
    """Golden rows asked of both replicas in turn on a schedule, until `close`."""

    def __init__(self, pair: Pair, rows: list[dict[str, Any]]) -> None:
        self.answers: list[Answer] = []
        self._replicas = list(pair.replicas.values())
        self._rows = rows
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._send, args=(number,)) for number in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _send(self, number: int) -> None:
        due = time.monotonic() + number / RATE
        replica = self._replicas[number % len(self._replicas)]
        asked = number
        with httpx.Client(base_url=replica.url, headers=replica.http.headers, timeout=10.0) as client:
            while not self._ended.wait(max(0.0, due - time.monotonic())):
                row = asked % len(self._rows)
                began = time.monotonic()
                answer = client.post("/v1/predict", json={"features": self._rows[row]})
                self.answers.append(
                    Answer(
                        began,
                        time.monotonic(),
                        answer.status_code,
                        answer.headers["x-breakwater-replica"],
                        row,
                        answer.json(),
                    )
                )
                asked += CLIENTS
                due = max(due + CLIENTS / RATE, time.monotonic() - 1.0)
