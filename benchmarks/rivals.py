"""The servers that are compared, each with one worker: ours, its peers as their documentation has it, and the limit."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from benchmarks.measured import BenchmarkError
from benchmarks.platform import Platform
from benchmarks.processes import LOOPBACK
from services.contracts.flights import MODEL_NAME

PEERS: Final = Path(__file__).with_name("peers")
LOCKED: Final = ("mlserver", "mlflow", "bentoml")
PORTS: Final = {
    "plain": 23901,
    "mlserver": 23910,
    "mlserver batched": 23920,
    "mlflow": 23930,
    "bentoml": 23940,
    "jdk": 23950,
}
"""A peer's further listeners (MLServer's gRPC and metrics) take the ports after its own."""
MAX_BATCH: Final = 64
"""Rows in a batch: ours, and what the peers are allowed."""
BATCH_WAIT_S: Final = 0.001
"""How long MLServer may wait for company; longer was slower."""
INSTALL_S: Final = 600

Kind = Literal["ours", "peer", "limit"]


@dataclass(frozen=True, slots=True)
class Rival:
    """`form` names the bodies it takes (vectors.py); `server` empty: it runs already.
    `fresh`: no body comes twice."""

    name: str
    kind: Kind
    server: str
    port: int
    path: str
    form: str
    token: bool = False
    fresh: bool = False


def rivals(platform: Platform) -> tuple[Rival, ...]:
    replica = platform.plan.member("api-0").port
    predict = "/v1/predict"
    return (
        Rival("ours, feature for feature", "ours", "plain", PORTS["plain"], predict, "named"),
        Rival("ours, all on, new keys", "ours", "", replica, predict, "named", token=True, fresh=True),
        Rival("ours, all on, cache hits", "ours", "", replica, predict, "named", token=True),
        Rival("MLServer", "peer", "mlserver", PORTS["mlserver"], f"/v2/models/{MODEL_NAME}/infer", "v2"),
        Rival(
            "MLServer, adaptive batching",
            "peer",
            "mlserver batched",
            PORTS["mlserver batched"],
            f"/v2/models/{MODEL_NAME}/infer",
            "v2",
        ),
        Rival("MLflow", "peer", "mlflow", PORTS["mlflow"], "/invocations", "inputs"),
        Rival("BentoML", "peer", "bentoml", PORTS["bentoml"], "/predict", "rows"),
        Rival("BentoML, adaptive batching", "peer", "bentoml", PORTS["bentoml"], "/predict_batched", "rows"),
        Rival("JDK HTTP server (the limit)", "limit", "jdk", PORTS["jdk"], "/predict", "bare"),
    )


def install(environments: Path) -> None:
    """The peers' environments, each from its hashed lock file; done in no time when they are there."""
    for name in LOCKED:
        lock, python = PEERS / f"{name}.lock", environments / name / "bin" / "python"
        stamp = environments / name / "lock"
        if stamp.is_file() and stamp.read_bytes() == lock.read_bytes():
            continue
        _run([sys.executable, "-m", "venv", "--without-pip", "--clear", str(environments / name)])
        uv = Path(sys.prefix) / "bin" / "uv"
        _run([str(uv), "--quiet", "pip", "sync", "--python", str(python), "--require-hashes", str(lock)])
        stamp.write_bytes(lock.read_bytes())


@dataclass(frozen=True, slots=True)
class Served:
    """How a server is started."""

    command: tuple[str, ...]
    port: int
    environment: Mapping[str, str]


def servers(platform: Platform, environments: Path) -> dict[str, Served]:
    """By name; writes what they need below the platform's scratch directory."""
    model = platform.model()
    peer = {
        "BENCH_MOJO": str(model.artifact),
        "BENCH_GENMODEL": str(platform.plan.genmodel_jar),
        "PYTHONPATH": str(PEERS),
        # none of them shall tell its makers
        "DO_NOT_TRACK": "true",
        "BENTOML_DO_NOT_TRACK": "true",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "BENTOML_HOME": str(platform.scratch / "bentoml"),
        "MLFLOW_TRACKING_URI": (platform.scratch / "mlruns").as_uri(),
    }

    def program(name: str, tool: str) -> str:
        return str(environments / name / "bin" / tool)

    saved = platform.scratch / "mlflow-model"
    shutil.rmtree(saved, ignore_errors=True)  # it holds a copy of the sources
    _run([program("mlflow", "python"), str(PEERS / "mlflow_model.py"), str(saved)], peer)
    mlserver = {
        name: Served(
            (program("mlserver", "mlserver"), "start", _mlserver_folder(platform.scratch, name, batched)),
            PORTS[name],
            peer,
        )
        for name, batched in (("mlserver", False), ("mlserver batched", True))
    }
    return {
        "plain": Served(
            (sys.executable, "-m", "benchmarks.plain"), PORTS["plain"], {"BREAKWATER_API_CONFIG": _plain(platform)}
        ),
        **mlserver,
        "mlflow": Served(
            (
                *(program("mlflow", "mlflow"), "models", "serve", "--env-manager", "local", "--workers", "1"),
                *("-m", str(saved), "-h", LOOPBACK, "-p", str(PORTS["mlflow"])),
            ),
            PORTS["mlflow"],
            peer | {"PATH": f"{environments / 'mlflow' / 'bin'}:{os.environ['PATH']}"},
        ),
        "bentoml": Served(
            (
                *(program("bentoml", "bentoml"), "serve", "bentoml_service:FlightDelay", "--working-dir", str(PEERS)),
                *("--host", LOOPBACK, "--port", str(PORTS["bentoml"])),
            ),
            PORTS["bentoml"],
            peer,
        ),
        "jdk": Served(
            (
                *(
                    "java",
                    "-Dsun.net.httpserver.nodelay=true",
                    "-Xmx128m",
                    "-cp",
                    peer["BENCH_GENMODEL"],
                    str(PEERS / "Limit.java"),
                ),
                *(str(PORTS["jdk"]), peer["BENCH_MOJO"]),
            ),
            PORTS["jdk"],
            {},
        ),
    }


def _mlserver_folder(scratch: Path, name: str, batched: bool) -> str:
    """Settings of a server whose model runs in its one process: a worker process of its own costs it a third."""
    folder = scratch / name.replace(" ", "-")
    folder.mkdir(exist_ok=True)
    port = PORTS[name]
    settings = {"host": LOOPBACK, "http_port": port, "grpc_port": port + 1, "metrics_port": port + 2}
    model = {"name": MODEL_NAME, "implementation": "mlserver_runtime.FlightDelay"}
    batching = {"max_batch_size": MAX_BATCH, "max_batch_time": BATCH_WAIT_S} if batched else {}
    (folder / "settings.json").write_text(json.dumps({**settings, "parallel_workers": 0, "debug": False}))
    (folder / "model-settings.json").write_text(json.dumps({**model, **batching}))
    return str(folder)


def _plain(platform: Platform) -> str:
    """The configuration of a replica, with a name and ports of its own; it holds no secret."""
    settings = platform.settings("api-0").model_copy(
        update={
            "replica": "plain",
            "port": PORTS["plain"],
            "agent_port": PORTS["plain"] + 1,
            "models_dir": platform.scratch / "models",
        }
    )
    path = platform.scratch / "plain.json"
    path.write_text(settings.model_dump_json())
    return str(path)


def _run(command: list[str], extra: Mapping[str, str] | None = None) -> None:
    done = subprocess.run(
        command, env={**os.environ, **(extra or {})}, capture_output=True, text=True, timeout=INSTALL_S, check=False
    )
    if done.returncode:
        raise BenchmarkError(f"{' '.join(command[:4])} ... ended with {done.returncode}:\n{done.stderr[-2000:]}")
