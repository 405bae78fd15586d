"""Actions that reload the model as an administrator does, through the edge, with sound, flawed and slow versions."""

from __future__ import annotations

import contextlib
import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, Literal

import urllib3

from experiments.errors import ExperimentError
from experiments.faults.cache import count
from experiments.faults.training import train_to_end
from experiments.faults.written import record_fault, say, the_fault, write_effect
from experiments.probes.replica_metrics import serving
from infra.environment import Environment, FaultProof
from infra.local import models
from infra.stack import local_plan, open_environment
from loadtests.plan import LoadPlan
from services.contracts.events import Event, monotonic_clock_id
from services.contracts.flights import MODEL_NAME

Artifact = Literal["sound", "slow", "corrupt", "schema", "golden"]

TRAINED: Final = "candidate"
ANSWER_S: Final = 40.0
"""The edge itself gives a reload 30 s."""
SLOW_S: Final = 4.0
"""Four times what a candidate takes to be prepared, and far inside the 15 s that a replica has for it."""
BACK_S: Final = 30.0
"""A replica starts in 5 s; on a crowded machine it takes several times that."""
PAUSE_S: Final = 1.6
"""Between two reloads, so that each replica answers with every model."""
SETTLED: Final = 4
"""Reloads after which a replica's memory should have found its size."""
MANY: Final = 10
"""So many reloads say something about memory."""
MID_RELOAD_S: Final = 0.3
"""After the candidate was announced: a replica looks for one twice a second and prepares it for half a second."""
ANNOUNCED_S: Final = 5.0
"""An order is read and its version verified within a fraction of a second."""
SERVES_S: Final = 5.0
"""As the promise that every replica answers with the new model."""
POLL_S: Final = 0.1
CANDIDATE_POLL_S: Final = 0.01


def prepare(environment: str, run_dir: str, seed: int, artifact: Artifact, reloads: int) -> dict[str, Any]:
    """Train another model, register as many versions of it as will be promoted, and work out what each must predict."""
    plan = local_plan(environment)
    directory = train_to_end(environment, run_dir, TRAINED, seed)
    before = models.keep(plan)
    flaw: models.Flaw = artifact if artifact in {"schema", "golden"} else "none"
    versions = [f"{_tag(run_dir)}-{number}" for number in range((reloads + 1) // 2)]
    artifacts = [models.register(plan, directory, version, flaw) for version in versions]
    flights = [sample.features for sample in _plan(run_dir).samples()]
    for version in (before, *versions):
        probabilities = models.predictions(plan, version, flights, directory)
        say(run_dir, Event.now("golden", "scored", None, version=version, probabilities=probabilities))
    if artifact == "corrupt":
        models.damage(artifacts[0])
    prepared = {"before": before, "versions": versions, "artifacts": [str(path) for path in artifacts]}
    (Path(run_dir) / "versions.json").write_text(json.dumps(prepared, indent=2))
    return prepared


def reload(
    environment: str, run_dir: str, *, seed: int, artifact: Artifact, reloads: int, killing: bool
) -> dict[str, Any]:
    """Promote each version and roll it back, `reloads` in all; a flawed one is tried, and again after a restart.

    `killing`: a replica, chosen by the seed, is killed while the first candidate is prepared, and comes back by itself.
    """
    target = open_environment(environment)
    prepared = json.loads((Path(run_dir) / "versions.json").read_text())
    administrator = Administrator(target, run_dir)
    _begin(target, run_dir)
    orders: Iterator[dict[str, Any]] = iter(
        order for version in prepared["versions"] for order in ({"version": version}, {"rollback": True})
    )
    if artifact in {"corrupt", "schema", "golden"}:
        order = next(orders)
        answers = [administrator.ask(order)]
        _restart(target, run_dir, seed)
        answers.append(administrator.ask(order))
        tried = "unanswered" not in answers
        _effect(run_dir, tried, f"the flawed version was ordered twice: {', '.join(answers)}")
        return {"answers": answers}
    slowed = models.slow(Path(prepared["artifacts"][0]), SLOW_S) if artifact == "slow" else contextlib.nullcontext()
    if killing:
        _kill_in_mid_reload(target, run_dir, seed, lambda: administrator.ask_until_done(next(orders)))
    else:
        with slowed:
            administrator.ask_until_done(next(orders))
    if reloads < MANY:
        count(target, run_dir, "before")
    for order, number in zip(orders, range(1, reloads), strict=False):
        if reloads >= MANY and number == SETTLED:
            count(target, run_dir, "before")
        time.sleep(PAUSE_S)
        administrator.ask_until_done(order)
    count(target, run_dir, "after")
    _effect(run_dir, administrator.done > 0, f"{administrator.done} reloads done, by the registry's word")
    return {"done": administrator.done, "refused": administrator.refused}


def restore(environment: str, run_dir: str) -> dict[str, Any]:
    """Bring the version back that was in production before the run, if it is not."""
    try:
        prepared = json.loads((Path(run_dir) / "versions.json").read_text())
    except FileNotFoundError:
        return {"steps": 0}
    return {"steps": models.bring_back(local_plan(environment), prepared["before"])}


class Administrator:
    """Orders reloads through the edge with the administrator's token, and notes what came of each."""

    def __init__(self, target: Environment, run_dir: str) -> None:
        edge = target.endpoints().edge
        self._url = f"{edge.url}/v1/admin/reload-model"
        self._headers = {
            "Authorization": f"Bearer {target.admin_token_file().read_text().strip()}",
            "Content-Type": "application/json",
        }
        self._http = urllib3.PoolManager(
            ssl_context=ssl.create_default_context(cafile=edge.ca_file), timeout=ANSWER_S, retries=False
        )
        self._target = target
        self._run_dir = run_dir
        self.done = 0
        self.refused = 0

    def ask(self, order: dict[str, Any]) -> str:
        """One order; `done`, or the code of its refusal."""
        began = time.monotonic()
        body = json.dumps({**order, "reason": "a reload under load"}).encode()
        try:
            answer = self._http.request("POST", self._url, body=body, headers=self._headers)
            found = answer.json()
        except (urllib3.exceptions.HTTPError, ValueError) as error:
            return self._note("unanswered", order, began, error=type(error).__name__)
        if answer.status != 200:  # noqa: PLR2004 - HTTP
            return self._note(str(found.get("code")), order, began)
        self.done += 1
        model = found["model"]
        say(
            self._run_dir,
            Event.now(
                "fault",
                "reloaded",
                None,
                version=model["version"],
                generation=model["generation"],
                seconds=time.monotonic() - began,
            ),
        )
        note_serving(self._target, self._run_dir, int(model["generation"]))
        return "done"

    def ask_until_done(self, order: dict[str, Any]) -> None:
        """Ask again while the answer says, or does not say, that nothing happened; ExperimentError after 30 s."""
        end = time.monotonic() + BACK_S
        while (said := self.ask(order)) != "done":
            if said == "illegal_transition":
                return  # an order whose answer was lost had been carried out
            if time.monotonic() > end:
                raise ExperimentError(f"the reload {order} was refused for {BACK_S:.0f} s, at last with {said}")
            time.sleep(PAUSE_S)

    def _note(self, code: str, order: dict[str, Any], began: float, **more: str) -> str:
        self.refused += code in {"candidate_refused", "artifact_corrupt"}
        version = order.get("version", "the one before")
        seconds = time.monotonic() - began
        say(
            self._run_dir,
            Event.now("fault", "not_reloaded", None, code=code, version=version, seconds=seconds, **more),
        )
        return code


def note_serving(target: Environment, run_dir: str, generation: int) -> None:
    """Note which model each replica serves, once it is this one or a newer one; who does not get there is left out."""
    waiting = [member.name for member in target.members("api")]
    end = time.monotonic() + SERVES_S
    while waiting and time.monotonic() < end:
        for name in tuple(waiting):
            page = target.metrics(name)
            found = None if page is None else serving(page)
            if found is not None and found[0] >= generation:
                say(run_dir, Event.now("metrics", "serving", name, generation=found[0], rehearsals=found[1]))
                waiting.remove(name)
        if waiting:
            time.sleep(POLL_S)


def _begin(target: Environment, run_dir: str) -> None:
    """The fault is the reloading itself: it strikes every replica, from here on."""
    processes = tuple(p for m in target.members("api") if (p := target.process_of(m.name)) is not None)
    proof = FaultProof(
        "every replica", "model", "reload", False, time.monotonic_ns(), processes, False, "not looked at"
    )
    record_fault(Path(run_dir), proof, component="api")


def _effect(run_dir: str, proven: bool, evidence: str) -> None:
    fault = the_fault(Path(run_dir))
    write_effect(Path(run_dir), fault, proven=proven, evidence=evidence)
    say(run_dir, Event.now("fault", "lifted", fault.member))


def _kill_in_mid_reload(target: Environment, run_dir: str, seed: int, order: Callable[[], None]) -> None:
    failed: list[ExperimentError] = []

    def ordered() -> None:
        try:
            order()
        except ExperimentError as error:
            failed.append(error)

    reloading = threading.Thread(target=ordered)
    reloading.start()
    _await_candidate(target)
    time.sleep(MID_RELOAD_S)
    replicas = target.members("api")
    proof = target.kill(replicas[seed % len(replicas)].name, scope="server", hold=False)
    say(run_dir, Event(proof.t_ns, monotonic_clock_id(), "fault", proof.member, "killed_beside", {}))
    reloading.join()
    if failed:
        raise failed[0]
    if not proof.proven:
        raise ExperimentError(f"the kill of {proof.member} had no effect: {proof.evidence}")
    _await_rotation(target, proof.member)


def _await_candidate(target: Environment) -> None:
    """Return as soon as replicas are asked to prepare a candidate."""
    key = f"/breakwater/{target.name}/models/{MODEL_NAME}/candidate"
    end = time.monotonic() + ANNOUNCED_S
    with contextlib.closing(target.etcd().client()) as etcd:
        while etcd.get(key) is None:
            if time.monotonic() > end:
                raise ExperimentError(f"no candidate was announced within {ANNOUNCED_S:.0f} s of the order to reload")
            time.sleep(CANDIDATE_POLL_S)


def _restart(target: Environment, run_dir: str, seed: int) -> None:
    """Stop one replica in order and start it again: it must find the model that serves, and not the flawed one."""
    replicas = target.members("api")
    member = replicas[seed % len(replicas)].name
    target.stop(member)
    target.start(member)
    _await_rotation(target, member)
    say(run_dir, Event.now("fault", "restarted", member))


def _await_rotation(target: Environment, member: str) -> None:
    end = time.monotonic() + BACK_S
    while True:
        with contextlib.suppress(OSError):
            if target.rotation().get(member, False):
                return
        if time.monotonic() > end:
            raise ExperimentError(f"{member} did not come back into rotation within {BACK_S:.0f} s")
        time.sleep(POLL_S)


def _plan(run_dir: str) -> LoadPlan:
    return LoadPlan.load(Path(run_dir) / "load.json")


def _tag(run_dir: str) -> str:
    """Versions of this run, told apart from every other run's."""
    return f"reload-{_plan(run_dir).run_tag:016x}"
