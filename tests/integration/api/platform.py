"""Everything that a replica of the API talks to, as real servers, and the replica itself as a real process."""

from __future__ import annotations

import json
import secrets
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

import httpx

from services.contracts.shards import ShardEndpoints
from services.coordination.etcd import EtcdClient
from services.featurestore.migrate import apply
from services.featurestore.partitions import ensure_partitions, standing_months
from services.featurestore.slots import publish_slot_map
from tests.integration.api.publishing import Publisher
from tests.integration.api.redis_server import RedisServer
from tests.integration.coordination.etcd_cluster import EtcdCluster, free_ports
from tests.integration.featurestore.servers import Postgres

ENVIRONMENT = "test"
DATABASE = "features"
READY_S = 30.0
END_S = 20.0
HEAP_MB = 96


class Platform:
    """Two shards, etcd, Redis and an empty model registry. A context manager."""

    def __init__(self, directory: Path, genmodel_jar: Path) -> None:
        self.directory = directory
        self.genmodel_jar = genmodel_jar
        self.models_dir = directory / "models"
        self.token = secrets.token_urlsafe(24)
        self.token_file = directory / "token"
        self.token_file.touch(mode=0o600)
        self.token_file.write_text(self.token + "\n")
        self.admin_token = secrets.token_urlsafe(24)
        self.admin_token_file = directory / "admin_token"
        self.admin_token_file.touch(mode=0o600)
        self.admin_token_file.write_text(self.admin_token)
        self.redis = RedisServer(directory / "redis")
        self.etcd = EtcdCluster(directory / "etcd", 1)
        self.etcd_client = EtcdClient(self.etcd.clients)
        self.postgres: list[Postgres] = []
        self.shards: list[ShardEndpoints] = []
        self._registry: Publisher | None = None
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.redis.start()
            stack.callback(self.redis.close)
            stack.enter_context(self.etcd)
            for shard in range(2):
                server = Postgres.create(f"shard-{shard}-0")
                stack.callback(server.destroy)
                server.create_database(DATABASE)
                self.postgres.append(server)
                self.shards.append(server.endpoints(shard, DATABASE))
            apply(self.shards)
            ensure_partitions(self.shards, standing_months(datetime.now(UTC).date()))
            stack.callback(self.etcd_client.close)
            publish_slot_map(self.etcd_client, ENVIRONMENT, self.shards)
            self._registry = self.publisher(ENVIRONMENT)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def registry(self) -> Publisher:
        assert self._registry is not None
        return self._registry

    def publisher(self, environment: str) -> Publisher:
        """A registry of its own for replicas of that environment, on the first shard's server."""
        artifacts = self.directory / f"artifacts-{environment}"
        return Publisher(self.postgres[0], self.etcd_client, environment, artifacts)

    def settings(self, port: int, agent_port: int) -> dict[str, object]:
        return {
            "replica": "api-0",
            "host": "127.0.0.1",
            "port": port,
            "agent_port": agent_port,
            "token_file": str(self.token_file),
            "admin_token_file": str(self.admin_token_file),
            "redis": {
                "host": "127.0.0.1",
                "port": self.redis.port,
                "password_file": str(self.redis.password_file),
            },
            "etcd": self.etcd.clients,
            "shards": [shard.model_dump(mode="json") for shard in self.shards],
            "pool": {"min": 2, "max": 4},
            **self.registry.settings(self.models_dir),
            "genmodel_jar": str(self.genmodel_jar),
            "jvm_heap_mb": HEAP_MB,
            "watchdog_ms": 250,
            "chaos": False,
        }


class Replica:
    """`python -m services.api` as a child, and a client that carries its token. A context manager."""

    def __init__(self, platform: Platform, **changes: object) -> None:
        ports = (changes.pop("port", None), changes.pop("agent_port", None))
        port, self.agent_port = (free_ports(1)[0] if wanted is None else int(str(wanted)) for wanted in ports)
        self.log = platform.directory / f"api-{port}.log"
        self._config = platform.directory / f"api-{port}.json"
        self._config.write_text(json.dumps(platform.settings(port, self.agent_port) | changes))
        self.url = f"http://127.0.0.1:{port}"
        self.http = httpx.Client(
            base_url=self.url, headers={"authorization": f"Bearer {platform.token}"}, timeout=READY_S
        )
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "services.api"],
                stdout=log,
                stderr=log,
                env={"BREAKWATER_API_CONFIG": str(self._config), "PATH": "/usr/bin:/bin"},
            )
        self.wait_for("/healthz")
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(timeout=END_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(timeout=END_S)

    def wait_for(self, path: str, status: int = 200) -> httpx.Response:
        """The first answer with that status; fails with the log when the replica ended or time is up."""
        deadline = time.monotonic() + READY_S
        while time.monotonic() < deadline:
            assert self.process is not None
            if (code := self.process.poll()) is not None:
                raise AssertionError(f"the replica ended with {code}: {self.log.read_text()}")
            try:
                answer = self.http.get(path)
            except httpx.TransportError:
                answer = None
            if answer is not None and answer.status_code == status:
                return answer
            time.sleep(0.02)
        raise AssertionError(f"{path} did not answer {status} within {READY_S} s: {self.log.read_text()}")

    def agent(self) -> str:
        """What the watchdog tells the edge."""
        with socket.create_connection(("127.0.0.1", self.agent_port), timeout=READY_S) as connection:
            return connection.recv(64).decode()

    def predict(self, **body: object) -> httpx.Response:
        return self.http.post("/v1/predict", json=body)

    def metric(self, name: str) -> float:
        """One sample of /metrics by its full name with labels; 0 when there is none yet."""
        for line in self.http.get("/metrics").text.splitlines():
            if line.startswith(f"{name} "):
                return float(line.split()[-1])
        return 0.0

    def lines(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Signal the replica and return its exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(timeout=END_S)
