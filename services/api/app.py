"""The application: builds every part of a replica, wires them together, starts and stops them in order."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import AsyncIterator
from functools import partial
from typing import TYPE_CHECKING, Final

from fastapi import FastAPI
from fastapi.telemetry import TelemetryConfig
from starlette.routing import Route
from starlette.types import ASGIApp

from services.api import features, models, predict, problems, reload
from services.api.admission import PREDICTIONS_IN_FLIGHT, READS_IN_FLIGHT, WRITES_IN_FLIGHT, Admission
from services.api.auth import BearerAuth
from services.api.cache import ScoreCache
from services.api.chaos import chaos_route
from services.api.direct import DirectRoute
from services.api.features import FeatureReader, FeatureWriter
from services.api.health import healthz, readyz
from services.api.layer import Layer
from services.api.metrics import Metrics, metrics_endpoint
from services.api.model_watch import ModelWatch, freeze_heap
from services.api.models import CurrentModels
from services.api.openapi import document
from services.api.predict import Predictor
from services.api.reload import Reloader
from services.api.scores import Scores
from services.api.scoring.batcher import MicroBatcher
from services.api.scoring.jvm import heap_used_bytes, start_jvm
from services.api.settings import Settings, read_secret
from services.api.shards import Shards
from services.api.watchdog import Watchdog
from services.breaker import State
from services.contracts.flights import MODEL_NAME
from services.coordination.etcd import EtcdClient
from services.registry import ArtifactStore, Presence, PublishedModels
from services.registry.registry import ModelRegistry

if TYPE_CHECKING:
    from services.api.tracing import Tracing

OPERATIONS: Final = (
    predict.OPERATION,
    features.OPERATION,
    features.READ_OPERATION,
    models.OPERATION,
    reload.OPERATION,
)

NO_TELEMETRY: TelemetryConfig = {"tracing": False, "metrics": False, "logs": False, "operation_spans": False}
"""The framework would measure every request for OpenTelemetry, at several times the cost of layer.py, which does it."""

logger = logging.getLogger(__name__)


class Replica:
    """One replica's parts."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.draining = False
        self.metrics = Metrics()
        self.auth = BearerAuth(read_secret(settings.token_file))
        self.admin = BearerAuth(read_secret(settings.admin_token_file))
        self.batcher = MicroBatcher()
        self.presence = Presence(EtcdClient(settings.etcd), settings.environment, MODEL_NAME, settings.replica)
        self.models = ModelWatch(
            settings.replica, _published(settings), self.presence, self.metrics, swapped=self.batcher.renew
        )
        self.reloader = Reloader(self.admin, MODEL_NAME, settings.replica, partial(_registry, settings))
        self.cache = ScoreCache(
            settings.redis.host,
            settings.redis.port,
            read_secret(settings.redis.password_file),
            self.metrics,
            root_certificate=settings.redis.root_certificate,
        )
        self.shards = Shards(settings)
        self.watchdog = Watchdog(
            settings.host, settings.agent_port, settings.watchdog_ms / 1000, self.metrics, lambda: self.draining
        )
        self.traces = _tracing(settings)
        for breaker in (self.batcher.breaker, *self.shards.store.breakers()):
            self.metrics.follow(breaker)
        for pool in self.shards.store.pools():
            self.metrics.watch(pool)

    def drain(self) -> None:
        """It has been asked to end: it serves on, but is not ready, and leads no reload."""
        self.draining = True
        self.reloader.withdraw()

    def obstacle(self) -> str | None:
        """Why the edge should send nothing here; None when ready."""
        if self.draining:
            return "draining"
        if self.watchdog.breaker.state is not State.CLOSED:
            return "event loop blocked"
        if self.models.current is None:
            return "no model"
        if self.batcher.breaker.state is State.OPEN:
            return "the model fails"
        return self.shards.obstacle

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Start everything that does not depend on others being up; wait for nothing else."""
        start_jvm(self.settings.genmodel_jar, self.settings.jvm_heap_mb)  # nothing is served yet
        self.metrics.jvm_heap.set_function(heap_used_bytes)
        self.cache.start()
        await self.shards.open()
        self.presence.start()
        await self.models.check()
        watching = asyncio.get_running_loop().create_task(self.models.run(), name="model-watch")
        watching.add_done_callback(_report)
        freeze_heap()
        self.watchdog.start()
        try:
            yield
        finally:
            self.watchdog.close()
            watching.cancel()
            await asyncio.wait([watching])
            await asyncio.to_thread(self.presence.close)
            self.reloader.close()
            await self.shards.close()
            await self.cache.close()
            self.models.close()
            self.batcher.close()
            if self.traces is not None:
                await asyncio.to_thread(self.traces.close)


def _published(settings: Settings) -> PublishedModels:
    memory = settings.models_dir / settings.replica
    store = ArtifactStore(settings.artifacts, cache=memory / "artifacts")
    return PublishedModels(EtcdClient(settings.etcd), settings.environment, MODEL_NAME, store, memory)


def _registry(settings: Settings, stop: threading.Event) -> ModelRegistry:
    store = ArtifactStore(settings.artifacts, cache=settings.models_dir / settings.replica / "artifacts")
    return ModelRegistry(settings.registry, EtcdClient(settings.etcd), settings.environment, store, stop=stop)


def _tracing(settings: Settings) -> Tracing | None:
    if settings.traces is None:
        return None
    from services.api.tracing import Tracing  # noqa: PLC0415 - the SDK costs memory and time: only who traces loads it

    return Tracing(settings.traces, environment=settings.environment, replica=settings.replica)


def create_app(replica: Replica) -> ASGIApp:
    """The ASGI application in its layer; its lifespan runs the replica's parts."""

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with replica.running():
            yield

    app = FastAPI(
        title="Breakwater", version="1", lifespan=lifespan, telemetry=NO_TELEMETRY, docs_url=None, redoc_url=None
    )
    problems.install(app)
    name = replica.settings.replica
    predictor = Predictor(
        auth=replica.auth,
        admission=Admission(PREDICTIONS_IN_FLIGHT, "predictions"),
        models=replica.models,
        store=replica.shards.store,
        scores=Scores(replica.cache, replica.batcher, replica.metrics),
    )
    writer = FeatureWriter(replica.auth, Admission(WRITES_IN_FLIGHT, "writes"), replica.shards.store)
    reader = FeatureReader(replica.auth, Admission(READS_IN_FLIGHT, "reads"), replica.shards.store)
    app.router.routes += [
        Route(predict.OPERATION.path, predictor.endpoint, methods=["POST"]),
        features.route(reader, writer),
        Route(models.OPERATION.path, CurrentModels(replica.auth, replica.models, name).endpoint),
        Route(reload.OPERATION.path, replica.reloader.endpoint, methods=["POST"]),
        Route("/healthz", healthz),
        Route("/readyz", readyz(replica.obstacle)),
        Route("/metrics", metrics_endpoint(replica.metrics)),
    ]
    if replica.settings.chaos:
        app.router.routes.append(chaos_route(replica.admin))
    app.openapi = lambda: document(app.title, app.version, OPERATIONS)  # type: ignore[method-assign]
    direct = DirectRoute(app, path=predict.OPERATION.path, endpoint=predictor.endpoint, handlers=app.exception_handlers)
    return Layer(
        direct,
        routes=[route.path for route in app.router.routes if isinstance(route, Route)],
        metrics=replica.metrics,
        replica=replica.settings.replica,
        draining=lambda: replica.draining,
        traces=replica.traces,
    )


def _report(task: asyncio.Task[None]) -> None:
    """A background task that ends on its own is a fault: say so at once."""
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.error("%s ended, the replica no longer follows it", task.get_name(), exc_info=error)
