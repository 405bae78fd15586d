"""The controls of all scenarios: which defect, put in where, and what the suite must say about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from experiments.checkers import TIMED
from experiments.checkers.finding import Verdict, merge
from experiments.scenario import Activity, Provider, Scenario
from experiments.verdict import EXIT_CODES, Judged, Judgement

ACTIONS: Final = "experiments.controls.actions"
KILL: Final = "kill the primary"
PROVE: Final = "prove that it died"
START: Final = "start it again"
RECOVERED: Final = "load after recovery"

FREEZE_S: Final = 1.5
"""Past a prediction's deadline of a second, within its client's patience of two: who hangs up dials anew, and the
handshakes would take the processor that clients send with."""
STRIKE: Final = "strike the cache"
BLOCK: Final = "block the loop of one replica"
LOAD: Final = "undisturbed load"
RELOAD: Final = "reload again and again"
ROLL: Final = "restart everything in turn"

HELD_S: Final = 3
"""As long ago as readers ask for: some of them for each moment of it."""

STALL_S: Final = 4
"""Half of the short fault band: far more than the 5 % of writes that may be missing."""

HOT_FLIGHTS: Final = 20
"""Of S-02: all of their keys die at once, and each is asked for 50 times in the 2 s that are left of a short fault."""

TIMED_NAMES: Final = frozenset(checker.__name__ for checker in TIMED)
"""As promises name their checkers."""

Place = Literal["before", "after", "instead"]
Arguments = Mapping[str, Any]

ENVIRONMENT: Final[Arguments] = {"environment": "${environment}"}
RUN: Final[Arguments] = {"run_dir": "${run_dir}"}
SHARD: Final[Arguments] = {"shard": "${shard}"}
BLOCKED: Final[Arguments] = {"seed": "${seed}", "seconds": "${block_s}"}
SCOPE: Final[Arguments] = {"scope": "${scope}"}


@dataclass(frozen=True, slots=True)
class Insertion:
    """One action put before, after or instead of an activity of the scenario, which `where` names."""

    place: Place
    where: str
    func: str
    arguments: Arguments


@dataclass(frozen=True, slots=True)
class Control:
    """A defect and the verdicts that it must cause; no other promise is `false` but those in `may` and `TIMED`."""

    name: str
    title: str
    insertions: tuple[Insertion, ...]
    expected: Mapping[str, Verdict]
    exit_code: int
    scenario: str = "S-01"
    variant: str = "server-killed"
    undo: tuple[tuple[str, Arguments], ...] = ()
    names_key: bool = False
    """The finding must show the key that is lost."""
    minimum: Mapping[str, float] = field(default_factory=dict)
    """A promise's value must be at least this: the defect's size, not only its presence."""
    may: frozenset[str] = frozenset()
    """What holds on any machine, and the defect breaks as well or not, as the fault meets it."""


def _patched(defect: str) -> tuple[Insertion, ...]:
    """The API's replicas run with a defect patched in (infra/local/defective.py)."""
    return (Insertion("before", LOAD, "make_defective", {**ENVIRONMENT, "defect": defect}),)


CONTROLS: Final[tuple[Control, ...]] = (
    Control(
        name="wardens-off",
        title="no warden: only the lease's end tells of the death",
        insertions=(Insertion("before", "undisturbed load", "wardens_off", ENVIRONMENT),),
        undo=(("wardens_on", ENVIRONMENT),),
        expected={"next-ack-certain": Verdict.FALSE, "next-ack": Verdict.TRUE, "lost-writes": Verdict.TRUE},
        exit_code=1,
    ),
    Control(
        name="lease-of-a-minute",
        title="a lease of 60 s, and no warden",
        insertions=(Insertion("before", LOAD, "lengthen_lease", {**ENVIRONMENT, **SHARD}),),
        undo=(("shorten_lease", {**ENVIRONMENT, **SHARD}),),
        expected={"next-ack-certain": Verdict.FALSE, "next-ack": Verdict.FALSE, "lost-writes": Verdict.TRUE},
        exit_code=1,
    ),
    Control(
        name="acknowledged-early",
        title="writes through the API acknowledged 200 ms before they are begun",
        insertions=_patched("acknowledged-early"),
        undo=(("make_sound", ENVIRONMENT),),
        # a read within the 200 ms finds nothing of what was acknowledged
        expected={"lost-writes": Verdict.FALSE, "stale-reads": Verdict.FALSE, "unexpected-rows": Verdict.TRUE},
        exit_code=1,
        names_key=True,
        minimum={"lost-writes": 1},
    ),
    Control(
        name="fence-off",
        title="no fence: a primary whose Patroni is frozen outlives its lease",
        scenario="S-01-partial",
        variant="patroni-frozen",
        insertions=(Insertion("before", LOAD, "fences_off", ENVIRONMENT),),
        undo=(("fences_on", ENVIRONMENT),),
        expected={
            "fenced": Verdict.FALSE,
            "longest-silence": Verdict.TRUE,
            "lost-writes": Verdict.TRUE,
            "timelines": Verdict.TRUE,
        },
        exit_code=1,
    ),
    Control(
        name="one-pool",
        title="one pool of connections for all shards",
        scenario="S-01-partial",
        variant="primary-paused",
        insertions=_patched("one-pool"),
        undo=(("make_sound", ENVIRONMENT),),
        expected={"other-shards": Verdict.FALSE, "lost-writes": Verdict.TRUE},
        exit_code=1,
    ),
    Control(
        name="asynchronous",
        title="asynchronous replication, both replicas held back, then the kill",
        insertions=(
            Insertion("before", "undisturbed load", "make_asynchronous", {**ENVIRONMENT, **SHARD}),
            Insertion("instead", KILL, "kill_with_unreplicated_writes", {**ENVIRONMENT, **RUN, **SHARD, **SCOPE}),
        ),
        undo=(("make_synchronous", {**ENVIRONMENT, **SHARD}),),
        expected={"lost-writes": Verdict.FALSE},
        exit_code=1,
        # a reader may ask for a write that is lost by then
        may=frozenset({"stale-reads"}),
        names_key=True,
        minimum={"lost-writes": 50},
    ),
    Control(
        name="reads-without-bound",
        title="standbys that replay nothing for 3 s, and answers that call every standby fresh",
        insertions=(
            *_patched("reads-without-bound"),
            Insertion("before", KILL, "hold_replay_back", {**ENVIRONMENT, **SHARD, "seconds": HELD_S}),
        ),
        undo=(("make_sound", ENVIRONMENT),),
        expected={"stale-reads": Verdict.FALSE, "lost-writes": Verdict.TRUE, "predictions": Verdict.TRUE},
        exit_code=1,
        minimum={"stale-reads": 5},
    ),
    Control(
        name="deleted-row",
        title="one acknowledged row deleted before the final read",
        insertions=(Insertion("after", RECOVERED, "delete_acknowledged_row", {**RUN, **SHARD}),),
        expected={"lost-writes": Verdict.FALSE},
        exit_code=1,
        names_key=True,
        minimum={"lost-writes": 1},
    ),
    Control(
        name="frozen-edge",
        title="the edge frozen for 1.5 s",
        insertions=(Insertion("after", PROVE, "freeze_edge", {**ENVIRONMENT, "seconds": FREEZE_S}),),
        expected={"predictions": Verdict.FALSE, "other-shards": Verdict.FALSE, "lost-writes": Verdict.TRUE},
        exit_code=1,
    ),
    Control(
        name="no-fault",
        title="the fault replaced by one that does nothing",
        insertions=(Insertion("instead", KILL, "pretend_to_kill", {**ENVIRONMENT, **RUN, **SHARD, **SCOPE}),),
        expected={"fault-proven": Verdict.UNKNOWN, "next-ack": Verdict.UNKNOWN},
        exit_code=2,
    ),
    Control(
        name="stalled-writers",
        title="the writers stalled while the fault lasts",
        insertions=(Insertion("after", PROVE, "stall_writers", {**RUN, "seconds": STALL_S}),),
        expected={"writes-attempted": Verdict.UNKNOWN},
        exit_code=2,
    ),
    Control(
        name="full-cache",
        title="a cache that refuses to store anything",
        scenario="S-02",
        variant="keys-deleted",
        insertions=(Insertion("before", STRIKE, "fill_cache", ENVIRONMENT),),
        undo=(("make_room_in_cache", ENVIRONMENT),),
        expected={"computations": Verdict.FALSE, "predictions": Verdict.TRUE, "fault-proven": Verdict.TRUE},
        exit_code=1,
    ),
    Control(
        name="breaker-never-opens",
        title="breakers that never open: a cache that stands still is asked again and again",
        scenario="S-02",
        variant="redis-paused",
        insertions=_patched("breaker-never-opens"),
        undo=(("make_sound", ENVIRONMENT),),
        expected={
            "predictions": Verdict.FALSE,
            "p99-without-cache": Verdict.FALSE,
            "fault-proven": Verdict.TRUE,
        },
        # a thousand requests wait at any time, and each is memory: 30 to 33 MiB, on either side of the bound
        may=frozenset({"memory"}),
        exit_code=1,
    ),
    Control(
        name="everybody-computes",
        title="no single flight and no lock, before a model that takes 35 ms",
        scenario="S-02",
        variant="keys-deleted",
        insertions=_patched("everybody-computes"),
        undo=(("make_sound", ENVIRONMENT),),
        # how long that takes is not said: beside a slow machine's own p99 it may be little
        expected={"computations": Verdict.FALSE, "predictions": Verdict.TRUE},
        exit_code=1,
    ),
    Control(
        name="slow-model",
        title="a model that takes 35 ms: each key is computed once all the same",
        scenario="S-02",
        variant="keys-deleted",
        insertions=_patched("slow-model"),
        undo=(("make_sound", ENVIRONMENT),),
        expected={"p99-after-expiry": Verdict.FALSE, "computations": Verdict.TRUE, "predictions": Verdict.TRUE},
        exit_code=1,
    ),
    Control(
        name="hard-expiry-only",
        title="no soft expiry: what is hot serves until it is gone, and is refreshed only then",
        scenario="S-02",
        variant="soft-expiry",
        insertions=_patched("hard-expiry-only"),
        undo=(("make_sound", ENVIRONMENT),),
        # whoever finds a key gone still computes it alone, in milliseconds
        expected={"hard-expiries": Verdict.FALSE, "computations": Verdict.TRUE, "predictions": Verdict.TRUE},
        exit_code=1,
        minimum={"hard-expiries": HOT_FLIGHTS},
    ),
    Control(
        name="edge-asks-once",
        title="an edge that asks no other replica when one does not answer",
        scenario="S-05",
        variant="replica-killed",
        insertions=(Insertion("before", LOAD, "edge_asks_once", ENVIRONMENT),),
        undo=(("edge_sound", ENVIRONMENT),),
        expected={"predictions": Verdict.FALSE, "golden": Verdict.TRUE, "generations": Verdict.TRUE},
        exit_code=1,
    ),
    Control(
        name="edge-trusts",
        title="an edge that asks no replica by HTTP: who accepts connections is believed",
        scenario="S-04",
        variant="replica-frozen",
        insertions=(Insertion("before", LOAD, "edge_trusts", ENVIRONMENT),),
        undo=(("edge_sound", ENVIRONMENT),),
        expected={"frozen-out-of-rotation": Verdict.FALSE, "p99-of-the-rest": Verdict.FALSE},
        exit_code=1,
    ),
    Control(
        name="watchdogs-off",
        title="no watchdog: nobody but the edge's own checks notices a blocked loop",
        scenario="S-04",
        variant="one-replica",
        insertions=(Insertion("before", "undisturbed load", "watchdogs_off", ENVIRONMENT),),
        undo=(("watchdogs_on", ENVIRONMENT),),
        expected={"breaker-open": Verdict.FALSE, "bad-predictions": Verdict.TRUE, "back": Verdict.TRUE},
        exit_code=1,
    ),
    Control(
        name="no-block",
        title="the blocked loop replaced by one that runs on",
        scenario="S-04",
        variant="one-replica",
        insertions=(Insertion("instead", BLOCK, "pretend_to_block", {**ENVIRONMENT, **RUN, **BLOCKED}),),
        expected={"fault-proven": Verdict.UNKNOWN, "breaker-open": Verdict.UNKNOWN, "back": Verdict.UNKNOWN},
        exit_code=2,
    ),
    Control(
        name="keeper-off",
        title="no keeper of the H2O cloud is elected",
        scenario="S-03",
        variant="node-killed",
        insertions=(Insertion("before", LOAD, "keeper_off", ENVIRONMENT),),
        undo=(("keeper_on", ENVIRONMENT),),
        expected={"loss-noticed": Verdict.FALSE, "predictions": Verdict.TRUE, "fault-proven": Verdict.TRUE},
        exit_code=1,
    ),
    Control(
        name="golden-unchecked",
        title="replicas that take a candidate without asking it for its golden rows",
        scenario="S-05",
        variant="wrong-golden",
        insertions=_patched("golden-unchecked"),
        undo=(("make_sound", ENVIRONMENT),),
        expected={"refused": Verdict.FALSE, "predictions": Verdict.TRUE, "golden": Verdict.TRUE},
        exit_code=1,
    ),
    Control(
        name="cache-of-any-model",
        title="scores cached by their flight alone, whichever model gave them",
        scenario="S-05",
        variant="good",
        insertions=_patched("cache-of-any-model"),
        undo=(("make_sound", ENVIRONMENT),),
        expected={"golden": Verdict.FALSE, "predictions": Verdict.TRUE, "generations": Verdict.TRUE},
        exit_code=1,
    ),
    Control(
        name="swap-with-a-gap",
        title="a reload that lets the old model go 200 ms before it takes the new one",
        scenario="S-05",
        variant="good",
        insertions=_patched("swap-with-a-gap"),
        undo=(("make_sound", ENVIRONMENT),),
        expected={"predictions": Verdict.FALSE, "golden": Verdict.TRUE, "generations": Verdict.TRUE},
        exit_code=1,
    ),
    Control(
        name="no-warm-up",
        title="a reload that lets a model serve which has answered nothing but its golden rows",
        scenario="S-05",
        variant="good",
        insertions=_patched("no-warm-up"),
        undo=(("make_sound", ENVIRONMENT),),
        expected={"rehearsed": Verdict.FALSE, "predictions": Verdict.TRUE, "golden": Verdict.TRUE},
        exit_code=1,
    ),
    Control(
        name="pointer-first",
        title="the pointer moved before any replica has verified what it names",
        scenario="S-05",
        variant="wrong-golden",
        insertions=(Insertion("after", RELOAD, "point_at_flawed", {**ENVIRONMENT, **RUN}),),
        expected={"refused": Verdict.FALSE, "predictions": Verdict.TRUE, "golden": Verdict.TRUE},
        exit_code=1,
    ),
    Control(
        name="edge-stopped",
        title="an edge that is stopped and started where its sockets should be handed over",
        scenario="S-06",
        variant="everything",
        insertions=(Insertion("after", ROLL, "restart_edge", ENVIRONMENT),),
        expected={"operations": Verdict.FALSE, "lost-writes": Verdict.TRUE, "restarted": Verdict.TRUE},
        exit_code=1,
    ),
    Control(
        name="never-drained",
        title="replicas that stop listening as soon as they are asked to end",
        scenario="S-06",
        variant="everything",
        insertions=_patched("never-drained"),
        undo=(("make_sound", ENVIRONMENT),),
        expected={"drained": Verdict.FALSE, "lost-writes": Verdict.TRUE, "restarted": Verdict.TRUE},
        exit_code=1,
    ),
)


def seeded(scenario: Scenario, control: Control) -> Scenario:
    """The scenario with the control's defect in its method and the way back first in its rollbacks."""
    method = list(scenario.method)
    for insertion in control.insertions:
        at = next(i for i, activity in enumerate(method) if activity.name == insertion.where)
        action = _action(insertion.where if insertion.place == "instead" else None, insertion.func, insertion.arguments)
        match insertion.place:
            case "before":
                method.insert(at, action)
            case "after":
                method.insert(at + 1, action)
            case "instead":
                method[at] = action
    undo = [_action(None, func, arguments) for func, arguments in control.undo]
    return scenario.model_copy(update={"method": method, "rollbacks": [*scenario.rollbacks, *undo]})


def _action(name: str | None, func: str, arguments: Arguments) -> Activity:
    provider = Provider(type="python", module=ACTIONS, func=func, arguments=dict(arguments))
    return Activity(type="action", name=name or func.replace("_", " "), provider=provider)


def expectations(control: Control, judgement: Judgement) -> Sequence[tuple[Judged, Verdict]]:
    """Each promise that the control names, as it was judged, and the verdict that it must have."""
    found = {entry.promise.id: entry for entry in judgement.judged}
    return [(found[promise], verdict) for promise, verdict in control.expected.items()]


def beside(control: Control, judgement: Judgement) -> Sequence[Judged]:
    """Broken promises that depend on time, and that the defect need not break: it may, and so may a slow machine.

    A control asks whether the suite sees the defect. What else is slow on a machine that others share, its healthy runs
    tell; a control that was called undetected for it would say nothing.
    """
    return [
        entry
        for entry in judgement.worst_first()
        if entry.finding.verdict is Verdict.FALSE
        and entry.promise.checker in TIMED_NAMES
        and control.expected.get(entry.promise.id, Verdict.TRUE) is Verdict.TRUE
    ]


def disagreements(control: Control, judgement: Judgement) -> Sequence[str]:
    """What the suite failed to say about the defect; empty when it behaved as it must. `beside` is left out of it."""
    aside = {entry.promise.id for entry in beside(control, judgement)}
    judged = [entry for entry in judgement.worst_first() if entry.promise.id not in aside]
    found = {entry.promise.id: entry.finding for entry in judged}
    wrong = []
    for entry, verdict in expectations(control, judgement):
        seen = entry.finding.verdict
        if seen is not verdict and entry.promise.id in found:
            wrong.append(f"{entry.promise.id} is {seen.value}, must be {verdict.value}: {entry.finding.reason}")
    for promise, least in control.minimum.items():
        value = found[promise].value
        if value is None or value < least:
            wrong.append(f"{promise} measured {value}, must be at least {least:g}")
    for entry in judged:
        named = entry.promise.id in control.expected or entry.promise.id in control.may
        if entry.finding.verdict is Verdict.FALSE and not named:
            wrong.append(f"{entry.promise.id} is false, which the defect does not explain: {entry.finding.reason}")
    exit_code = EXIT_CODES[merge(finding.verdict for finding in found.values())]
    if exit_code != control.exit_code:
        others = "; ".join(
            f"{entry.promise.id} is {entry.finding.verdict.value}: {entry.finding.reason}"
            for entry in judged
            if entry.finding.verdict is Verdict.UNKNOWN and entry.promise.id not in control.expected
        )
        wrong.append(f"exit code {exit_code}, must be {control.exit_code}{'; ' if others else ''}{others}")
    if control.names_key and not any(
        exhibit.rows for promise in control.expected if promise in found for exhibit in found[promise].evidence
    ):
        wrong.append("no lost key is named")
    return wrong
