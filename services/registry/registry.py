"""The model registry: versions with a stage in PostgreSQL, their artifacts in a store, and the pointer that follows.

PostgreSQL decides; etcd's pointer follows. What comes into production has been prepared by every live replica before.
Every change is one transaction, so a crash leaves the state before or after it; what it leaves undone between the two
is done by the next `repair`, which the reconciler runs every few seconds.
Artifacts are stored before the rows that name them: a crash leaves at most content that nobody names.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Literal

import psycopg
from psycopg.rows import class_row

from services.contracts.shards import ShardEndpoints
from services.coordination.etcd import EtcdClient, EtcdError
from services.featurestore.sessions import session, transaction
from services.registry.announced import Pointer
from services.registry.card import ModelCard, sha256_of
from services.registry.errors import (
    ArtifactCorrupt,
    IllegalTransition,
    PointerMoved,
    PointerPending,
    ReloadInterrupted,
    UnknownVersion,
    VersionTaken,
)
from services.registry.golden import Golden
from services.registry.published import ArtifactKind, Manifest, open_version, publish, published_generation
from services.registry.reload import Leader, Reload
from services.registry.store import ArtifactStore

MIGRATIONS: Final = Path(__file__).with_name("migrations")
DATABASE: Final = "model_registry"
APPLICATION: Final = "breakwater-registry"
LOCK_TIMEOUT_MS: Final = 5000
"""Changes take milliseconds and exclude each other: one that waits longer meets a session that hangs."""
Stage = Literal["registered", "staging", "production", "archived"]

VERSIONS: Final = """
    select v.model, v.version, v.stage, v.manifest, v.registered_at, r.trainer, r.seed, r.train_end, r.test_end,
        r.train_rows, r.test_rows,
        (select coalesce(jsonb_object_agg(metric, value), '{}') from model_registry.metrics m where m.run_id = v.run_id)
            as metrics
    from model_registry.versions v join model_registry.training_runs r using (run_id)
"""
# The version that served until the one that serves was promoted: one that had been rolled back by then did not.
PREDECESSOR: Final = """
    select version from model_registry.transitions
    where model = %(model)s and to_stage = 'archived' and id < (
        select min(id) from model_registry.transitions
        where model = %(model)s and version = %(version)s and from_stage = 'staging' and to_stage = 'production'
    ) order by id desc limit 1
"""


@dataclass(frozen=True, slots=True)
class Version:
    """One line of the registry."""

    model: str
    version: str
    stage: Stage
    manifest: str
    registered_at: datetime
    trainer: str
    seed: int
    train_end: datetime
    test_end: datetime
    train_rows: int
    test_rows: int
    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Transition:
    """One line of a version's history; `from_stage` None is its registration."""

    version: str
    from_stage: Stage | None
    to_stage: Stage
    actor: str
    reason: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Artifact:
    kind: ArtifactKind
    sha256: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Why:
    """Who changes something, and why; both are kept for ever."""

    actor: str
    reason: str


class ModelRegistry:
    """Registers, moves and lists versions. `database` is the registry's own, on one shard's cluster."""

    def __init__(
        self,
        database: ShardEndpoints,
        etcd: EtcdClient,
        environment: str,
        store: ArtifactStore,
        *,
        stop: threading.Event | None = None,
        between: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`stop` ends a reload that has not been decided. `between` is called with each step's name before the step:
        tests die there."""
        self._database = database
        self._etcd = etcd
        self._environment = environment
        self._store = store
        self._leader = Leader(etcd, environment, stop)
        self._between = between

    # What there is.

    def versions(self, model: str) -> list[Version]:
        """All versions, newest first."""
        with session(self._database, application_name=APPLICATION) as connection:
            return _versions(connection, "where v.model = %s order by v.registered_at desc, v.version desc", model)

    def version(self, model: str, version: str) -> Version:
        with session(self._database, application_name=APPLICATION) as connection:
            return _one(connection, model, version)

    def history(self, model: str, version: str | None = None) -> list[Transition]:
        """Every change of stage of the model, or of one version; oldest first."""
        with (
            session(self._database, application_name=APPLICATION) as connection,
            connection.cursor(row_factory=class_row(Transition)) as cursor,
        ):
            return cursor.execute(
                "select version, from_stage, to_stage, actor, reason, at from model_registry.transitions "
                "where model = %s and (%s::text is null or version = %s) order by id",
                (model, version, version),
            ).fetchall()

    def artifacts(self, model: str, version: str) -> list[Artifact]:
        with (
            session(self._database, application_name=APPLICATION) as connection,
            connection.cursor(row_factory=class_row(Artifact)) as cursor,
        ):
            return cursor.execute(
                "select kind, sha256, bytes from model_registry.artifacts where model = %s and version = %s "
                "order by kind",
                (model, version),
            ).fetchall()

    def wanted(self) -> list[Pointer]:
        """What the pointers must say: one for each model that has a version in production."""
        with session(self._database, application_name=APPLICATION) as connection:
            rows = connection.execute(
                "select model, version, generation, manifest from model_registry.versions "
                "join model_registry.models using (model) where stage = 'production' order by model"
            ).fetchall()
        return [Pointer(name=row[0], version=row[1], generation=row[2], manifest=row[3]) for row in rows]

    # What changes it.

    def register(self, artifact: Path, card: ModelCard, golden: Golden, contract: str, why: Why) -> Version:
        """Store a trained model and register it. The same version again is allowed with the same content only.

        `contract` is the JSON schema of what the model takes. Raises ArtifactCorrupt when artifact and card do not
        belong together, VersionTaken, StoreUnavailable, ShardUnavailable, CommitUnknown (register again then).
        """
        if (actual := sha256_of(artifact)) != card.sha256:
            raise ArtifactCorrupt(f"{artifact} has sha256 {actual}, its card says {card.sha256}: train again")
        contents: dict[ArtifactKind, bytes] = {
            "mojo": artifact.read_bytes(),
            "card": card.to_json().encode(),
            "golden": golden.to_json().encode(),
            "contract": contract.encode(),
        }
        digests: dict[ArtifactKind, str] = {}
        for kind, content in contents.items():
            self._between(f"store {kind}")
            digests[kind] = self._store.put(content)
        manifest = Manifest(name=card.name, version=card.version, artifacts=digests)
        self._between("store manifest")
        digest = self._store.put(manifest.to_json().encode())
        self._between("insert rows")
        with self._change(why) as connection:
            if _insert(connection, card, digest):
                with connection.cursor() as cursor:
                    cursor.executemany(
                        "insert into model_registry.artifacts (model, version, kind, sha256, bytes) "
                        "values (%s, %s, %s, %s, %s)",
                        [
                            (card.name, card.version, kind, digests[kind], len(content))
                            for kind, content in contents.items()
                        ],
                    )
            registered = _one(connection, card.name, card.version)
            if registered.manifest != digest:
                raise VersionTaken(f"{card.name} {card.version} is registered with other content: choose a new version")
            self._between("commit rows")
        return registered

    def stage(self, model: str, version: str, why: Why) -> Version:
        """registered -> staging, after verifying every artifact."""
        open_version(self._store, self.version(model, version).manifest, model, version)
        with self._change(why) as connection:
            _move(connection, model, version, "staging")
            return _one(connection, model, version)

    def promote(self, model: str, version: str, why: Why) -> Reload:
        """staging -> production, the one before it -> archived, then the pointer, once every live replica has it ready.

        Raises CandidateRefused, ReloadInProgress, ReloadInterrupted, ArtifactCorrupt, EtcdUnavailable: nothing changed.
        PointerPending: the registry has decided, and the next repair moves the pointer.
        """
        found = self.version(model, version)

        def change(connection: psycopg.Connection) -> None:
            if _one(connection, model, version).stage != "staging":
                _refuse(connection, model, version, "production")
            _archive_production(connection, model)
            _move(connection, model, version, "production")
            self._between("commit promotion")

        if found.stage != "staging":
            with session(self._database, application_name=APPLICATION) as connection:
                _refuse(connection, model, version, "production")
        return self._reload(found, why, change)

    def bring_into_production(self, model: str, version: str, why: Why) -> Reload:
        """`promote`, through staging when the version is only registered."""
        if self.version(model, version).stage == "registered":
            self.stage(model, version, why)
        return self.promote(model, version, why)

    def rollback(self, model: str, why: Why) -> Reload:
        """production -> archived, and the version that served before it back to production; raises as `promote`."""
        with session(self._database, application_name=APPLICATION) as connection:
            before = _predecessor(connection, model)

        def change(connection: psycopg.Connection) -> None:
            if _predecessor(connection, model) != before:
                raise ReloadInterrupted(f"another version of {model} came into production meanwhile; try again")
            _archive_production(connection, model)
            _move(connection, model, before.version, "production")
            self._between("commit rollback")

        return self._reload(before, why, change)

    def repair(self) -> list[Pointer]:
        """Make every pointer what the registry says; returns those that it had to move. Raises EtcdUnavailable."""
        moved = []
        for pointer in self.wanted():
            try:
                if publish(self._etcd, self._environment, pointer):
                    moved.append(pointer)
            except PointerMoved:
                # etcd is ahead (the registry was restored from an older copy): go beyond it, generations only grow
                ahead = self._overtake(pointer)
                if ahead is not None and publish(self._etcd, self._environment, ahead):
                    moved.append(ahead)
        return moved

    def _reload(self, version: Version, why: Why, change: Callable[[psycopg.Connection], None]) -> Reload:
        """The one way into production: candidate, every live replica's answer, the rows, the pointer, the swaps."""
        candidate = Pointer(
            name=version.model,
            version=version.version,
            generation=self._generation(version.model) + 1,
            manifest=version.manifest,
        )
        with self._leader.announce(candidate) as attempt:
            self._between("prepare candidate")
            if not attempt.prepare():  # else each of them has verified what it prepared
                open_version(self._store, version.manifest, version.model, version.version)
            with self._change(why) as connection:
                generation = _next_generation(connection, version.model)
                change(connection)
            pointer = candidate.model_copy(update={"generation": generation})
            self._between("move pointer")
            try:
                publish(self._etcd, self._environment, pointer)
            except (EtcdError, PointerMoved) as error:
                raise PointerPending(
                    f"{pointer.name} {pointer.version} is in production by the registry; the pointer follows with the "
                    f"next repair: {error}"
                ) from error
            return Reload(pointer, attempt.serving(pointer))

    def _generation(self, model: str) -> int:
        with session(self._database, application_name=APPLICATION) as connection:
            row = connection.execute(
                "select generation from model_registry.models where model = %s", (model,)
            ).fetchone()
        if row is None:
            raise UnknownVersion(f"there is no model {model}: train one")
        return int(row[0])

    def _overtake(self, pointer: Pointer) -> Pointer | None:
        """The pointer with a generation beyond etcd's; None when the registry itself has moved on meanwhile."""
        found = published_generation(self._etcd, self._environment, pointer.name)
        with transaction(self._database, application_name=APPLICATION) as connection:
            row = connection.execute(
                "update model_registry.models set generation = %s where model = %s and generation = %s "
                "returning generation",
                (found + 1, pointer.name, pointer.generation),
            ).fetchone()
        return None if row is None else pointer.model_copy(update={"generation": row[0]})

    @contextmanager
    def _change(self, why: Why) -> Iterator[psycopg.Connection]:
        """One transaction that carries who and why to the audit; IllegalTransition when the schema refuses."""
        with transaction(self._database, application_name=APPLICATION) as connection:
            connection.execute(
                "select set_config('breakwater.actor', %s, true), set_config('breakwater.reason', %s, true), "
                "set_config('lock_timeout', %s, true)",
                (why.actor, why.reason, str(LOCK_TIMEOUT_MS)),
            )
            yield connection


def _versions(connection: psycopg.Connection, condition: str, *values: Any) -> list[Version]:
    with connection.cursor(row_factory=class_row(Version)) as cursor:
        return cursor.execute(f"{VERSIONS} {condition}".encode(), values).fetchall()


def _one(connection: psycopg.Connection, model: str, version: str) -> Version:
    found = _versions(connection, "where v.model = %s and v.version = %s", model, version)
    if not found:
        raise UnknownVersion(f"{model} {version} is not registered: `breakwater models list` shows what is")
    return found[0]


def _insert(connection: psycopg.Connection, card: ModelCard, manifest: str) -> bool:
    """Model, run, metrics and version; False when the version is there already."""
    connection.execute("insert into model_registry.models (model) values (%s) on conflict do nothing", (card.name,))
    connection.execute("select 1 from model_registry.models where model = %s for update", (card.name,))
    known = connection.execute(
        "select 1 from model_registry.versions where model = %s and version = %s", (card.name, card.version)
    ).fetchone()
    if known:
        return False
    run, window = uuid.uuid4(), card.window
    connection.execute(
        "insert into model_registry.training_runs (run_id, model, trainer, seed, train_start, train_end, test_start, "
        "test_end, train_rows, test_rows) values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
        (
            *(run, card.name, card.trainer, card.seed, window.train_start, window.train_end),
            *(window.test_start, window.test_end, card.rows.train, card.rows.test),
        ),
    )
    for metric, value in card.metrics.model_dump().items():
        connection.execute("insert into model_registry.metrics values (%s, %s, %s)", (run, metric, value))
    connection.execute(
        "insert into model_registry.versions (model, version, run_id, manifest) values (%s, %s, %s, %s)",
        (card.name, card.version, run, manifest),
    )
    return True


def _next_generation(connection: psycopg.Connection, model: str) -> int:
    """Also locks the model: one change of what serves at a time."""
    row = connection.execute(
        "update model_registry.models set generation = generation + 1 where model = %s returning generation", (model,)
    ).fetchone()
    if row is None:
        raise UnknownVersion(f"there is no model {model}: train one")
    return int(row[0])


def _predecessor(connection: psycopg.Connection, model: str) -> Version:
    """The version that served before the one that serves."""
    row = connection.execute(
        "select version from model_registry.versions where model = %s and stage = 'production'", (model,)
    ).fetchone()
    if row is None:
        raise IllegalTransition(f"{model} has no version in production: promote one")
    before = connection.execute(PREDECESSOR, {"model": model, "version": row[0]}).fetchone()
    if before is None:
        raise IllegalTransition(f"no version of {model} served before {row[0]}: there is nothing to go back to")
    return _one(connection, model, before[0])


def _archive_production(connection: psycopg.Connection, model: str) -> None:
    connection.execute(
        "update model_registry.versions set stage = 'archived' where model = %s and stage = 'production'", (model,)
    )


def _move(connection: psycopg.Connection, model: str, version: str, stage: Stage) -> None:
    """Set the stage; the schema itself refuses what is not legal."""
    try:
        with connection.transaction():
            moved = connection.execute(
                "update model_registry.versions set stage = %s where model = %s and version = %s and stage <> %s",
                (stage, model, version, stage),
            ).rowcount
    except psycopg.errors.ForeignKeyViolation:
        moved = 0
    if moved == 0:
        _refuse(connection, model, version, stage)


def _refuse(connection: psycopg.Connection, model: str, version: str, stage: Stage) -> None:
    found = _one(connection, model, version)
    raise IllegalTransition(
        f"{model} {version} is {found.stage} and cannot become {stage}: legal are registered -> staging -> "
        "production -> archived, and back to production by a rollback"
    )
