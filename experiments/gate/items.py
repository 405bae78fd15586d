"""The gate's items: each a pure function from facts to a verdict with what was seen; no item is a tick box."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from experiments.checkers.finding import Verdict, count, merge
from experiments.commit import same
from experiments.gate.facts import Answer, CaseResult, Facts, Heap, LastRun, Missing

MIN_PINGS: Final = 400
"""The watchdog pings 20 times a second: less than 20 s of load says nothing about a loop that blocks now and then."""
CONSENSUS_S: Final = 5.0
"""A dead node is noticed within this (S-03's own promise); readiness that lags longer sends work to half a cloud."""
HEAP_SHARE: Final = 0.7
SNAPSHOT: Final = frozenset({"repeatable read", "serializable"})
TESTCONTAINERS: Final = "tests.integration.containers"
ENGINE: Final = "tests.kubernetes.test_engine"
"""Where the tests stand that prove an item: JUnit names each case after its module."""
SHOWN: Final = 3
"""So many examples stand in a line; the count says how many there are."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an item came to and what it saw, in one sentence."""

    verdict: Verdict
    seen: str


@dataclass(frozen=True, slots=True)
class Item:
    """One line of the checklist. `from_staging`: needs faults or load, so production takes staging's evidence."""

    id: str
    demand: str
    examine: Callable[[Facts], Outcome]
    from_staging: bool = False


def tls(facts: Facts) -> Outcome:
    """The edge ends TLS: it takes 1.3 and refuses 1.2 by an alert."""
    if isinstance(facts.handshakes, Missing):
        return Outcome(Verdict.UNKNOWN, facts.handshakes.why)
    outcomes: list[Outcome] = []
    for offered, wanted in (("1.3", Answer.ACCEPTED), ("1.2", Answer.REFUSED)):
        tried = [shake for shake in facts.handshakes if shake.offered == offered]
        if not tried:
            outcomes.append(Outcome(Verdict.UNKNOWN, f"nobody offered TLS {offered}"))
        for shake in tried:
            verdict = Verdict.TRUE if shake.answer is wanted else Verdict.FALSE
            if shake.answer is Answer.NONE:
                verdict = Verdict.UNKNOWN
            said = f"TLS {offered} at {shake.address}: {shake.answer.value} ({shake.said})"
            outcomes.append(Outcome(verdict, said))
    return _all(outcomes)


def blocking_calls(facts: Facts) -> Outcome:
    """No blocking call in the services' source, and no loop that the watchdog saw blocked under load."""
    return _all([_source(facts), _loops(facts)])


def _source(facts: Facts) -> Outcome:
    scan = facts.scan
    if isinstance(scan, Missing):
        return Outcome(Verdict.UNKNOWN, scan.why)
    if not scan.files:
        return Outcome(Verdict.UNKNOWN, "no source file was scanned")
    if scan.breaches:
        found = count(len(scan.breaches), "blocking call")
        return Outcome(Verdict.FALSE, f"{found} in {count(scan.files, 'file')}: {_few(scan.breaches)}")
    hook = f", but for the fault hook ({_few(scan.deliberate)})" if scan.deliberate else ""
    return Outcome(Verdict.TRUE, f"no blocking call in {count(scan.files, 'file')}{hook}")


def _loops(facts: Facts) -> Outcome:
    loops = facts.loops
    if isinstance(loops, Missing):
        return Outcome(Verdict.UNKNOWN, loops.why)
    blocked = [f"{watch.replica} {watch.blocked} times" for watch in loops.replicas if watch.blocked]
    if blocked:
        return Outcome(Verdict.FALSE, f"watchdogs saw loops blocked in {loops.run}: {_few(blocked)}")
    if not same(loops.commit, facts.commit):
        return Outcome(Verdict.UNKNOWN, f"{loops.run} is of {_named(loops.commit)}, not of {_named(facts.commit)}")
    thin = [watch.replica for watch in loops.replicas if watch.pings is None or watch.pings < MIN_PINGS]
    if thin or not loops.replicas:
        who = ", ".join(thin) or "no replica"
        return Outcome(Verdict.UNKNOWN, f"{loops.run}: {who} without {MIN_PINGS} answers to its watchdog")
    pings = sum(watch.pings or 0 for watch in loops.replicas)
    replicas = count(len(loops.replicas), "replica")
    return Outcome(Verdict.TRUE, f"watchdogs of {replicas} counted {pings:,} pings and no blocked loop in {loops.run}")


def snapshot_isolation(facts: Facts) -> Outcome:
    """Every shard's server said that the training read one snapshot from its first statement to its last."""
    training = facts.training
    if isinstance(training, Missing):
        return Outcome(Verdict.UNKNOWN, training.why)
    loose = [f"shard {w.shard} read under {w.isolation}" for w in training.witnesses if w.isolation not in SNAPSHOT]
    moved = [
        f"shard {w.shard}'s snapshot moved from {w.begin} to {w.end}" for w in training.witnesses if w.begin != w.end
    ]
    if loose or moved:
        return Outcome(Verdict.FALSE, f"training {training.version}: {_few(loose + moved)}")
    seen = {witness.shard for witness in training.witnesses}
    if len(seen) < training.shards:
        return Outcome(
            Verdict.UNKNOWN, f"training {training.version} has the word of {len(seen)} of {training.shards} shards"
        )
    if not same(training.commit, facts.commit):
        return Outcome(
            Verdict.UNKNOWN,
            f"training {training.version} is of {_named(training.commit)}, not of {_named(facts.commit)}",
        )
    levels = ", ".join(sorted({witness.isolation for witness in training.witnesses}))
    shards = count(training.shards, "shard")
    return Outcome(Verdict.TRUE, f"training {training.version}: {levels} on {shards}, one snapshot on each")


def tests_ran(facts: Facts, *, package: str, words: str) -> Outcome:
    """The tests of one place ran and passed, on this commit; skipped or absent is unknown.

    What one command skipped and another one ran was run: `make test-containers` starts the engine that `make test` may
    miss.
    """
    tests = facts.tests
    if isinstance(tests, Missing):
        return Outcome(Verdict.UNKNOWN, tests.why)
    ran = {case.name for case in tests.cases if case.outcome != "skipped"}
    cases = [
        case
        for case in tests.cases
        if case.name.startswith(package) and (case.outcome != "skipped" or case.name not in ran)
    ]
    failed = [case.name for case in cases if case.outcome == "failed"]
    if failed:
        return Outcome(Verdict.FALSE, f"{len(failed)} of {len(cases)} {words} failed: {_few(failed)}")
    if not cases:
        return Outcome(Verdict.UNKNOWN, f"{words}: not run (none in {', '.join(tests.files)})")
    skipped = [case for case in cases if case.outcome == "skipped"]
    if skipped:
        why = _few(sorted({case.why for case in skipped if case.why})) or "no reason given"
        return Outcome(Verdict.UNKNOWN, f"{words}: {len(skipped)} of {len(cases)} skipped ({why})")
    strange = [_named(found) for found in tests.commits if not same(found, facts.commit)]
    if strange:
        return Outcome(
            Verdict.UNKNOWN, f"test results are of {', '.join(sorted(strange))}, not of {_named(facts.commit)}"
        )
    return Outcome(Verdict.TRUE, f"{_passed(cases)} of {len(cases)} {words} passed")


def _passed(cases: Sequence[CaseResult]) -> int:
    return sum(case.outcome == "passed" for case in cases)


def shared_contract(facts: Facts) -> Outcome:
    """Whoever writes and whoever reads vectors imports one contract, and nobody declares it again."""
    use = facts.contract
    if isinstance(use, Missing):
        return Outcome(Verdict.UNKNOWN, use.why)
    if not use.fields or not use.reach:
        return Outcome(Verdict.UNKNOWN, f"{use.contract} was not found")
    without = [package for package, reached in use.reach.items() if not reached]
    if without or use.copies:
        wrong = [f"{package} does not import it" for package in without] + [
            f"{copy} declares it again" for copy in use.copies
        ]
        return Outcome(Verdict.FALSE, f"{use.contract}: {_few(wrong)}")
    return Outcome(
        Verdict.TRUE, f"{', '.join(use.reach)} import {use.contract} ({use.fields} fields), which has no copy"
    )


def memory_split(facts: Facts) -> Outcome:
    """Each H2O JVM has 70 % of its container as heap, as rendered and as it runs."""
    if isinstance(facts.heaps, Missing):
        return Outcome(Verdict.UNKNOWN, facts.heaps.why)
    unread = [heap.where for heap in facts.heaps if heap.heap_mb is None or not heap.limit_mb]
    wrong = [f"{heap.where}: {_split(heap)}" for heap in facts.heaps if heap.limit_mb and not _is_split(heap)]
    if wrong:
        return Outcome(Verdict.FALSE, _few(wrong))
    running = [heap for heap in facts.heaps if heap.running]
    if unread or not running:
        return Outcome(Verdict.UNKNOWN, f"no heap known of {_few(unread)}" if unread else "no running JVM was seen")
    shares = ", ".join(sorted({_split(heap) for heap in facts.heaps}))
    rendered = len(facts.heaps) - len(running)
    return Outcome(Verdict.TRUE, f"{len(running)} running and {rendered} planned nodes: {shares}")


def _is_split(heap: Heap) -> bool:
    return heap.heap_mb is None or (heap.limit_mb is not None and heap.heap_mb == int(heap.limit_mb * HEAP_SHARE))


def _split(heap: Heap) -> str:
    native = None if heap.limit_mb is None or heap.heap_mb is None else heap.limit_mb - heap.heap_mb
    return f"heap {heap.heap_mb} + native {native} of {heap.limit_mb} MB"


def readiness(facts: Facts) -> Outcome:
    """With one H2O node dead, no other node calls itself ready."""
    trial = facts.consensus
    if isinstance(trial, Missing):
        return Outcome(Verdict.UNKNOWN, trial.why)
    unready = [node for node, ready in trial.ready_before.items() if not ready]
    if unready or not trial.false_after_s:
        return Outcome(Verdict.UNKNOWN, f"the cloud was not ready before: {_few(unready) or 'no other node'}")
    if not trial.proven:
        return Outcome(Verdict.UNKNOWN, f"{trial.killed} is not proven dead: {trial.evidence}")
    still = [node for node, after in trial.false_after_s.items() if after is None or after > CONSENSUS_S]
    if still:
        verdict = Verdict.FALSE if trial.watched_s >= CONSENSUS_S else Verdict.UNKNOWN
        watched = f"{CONSENSUS_S:g} s later, watched for {trial.watched_s:.1f} s"
        return Outcome(verdict, f"{trial.killed} killed: {_few(still)} called itself ready {watched}")
    slowest = max(after for after in trial.false_after_s.values() if after is not None)
    others = count(len(trial.false_after_s), "other node")
    said = f"{trial.killed} killed: {others} not ready within {slowest:.2f} s"
    if not trial.ready_again:
        return Outcome(Verdict.FALSE, f"{said}, but the cloud did not become ready again")
    return Outcome(Verdict.TRUE, f"{said}, all ready again by themselves")


def verified(facts: Facts) -> Outcome:
    """The last run of every variant of every scenario is true, recent, of this commit, and the scenario's own."""
    if isinstance(facts.runs, Missing):
        return Outcome(Verdict.UNKNOWN, facts.runs.why)
    outcomes = [_verified(run, facts) for run in facts.runs]
    bad = [outcome for outcome in outcomes if outcome.verdict is not Verdict.TRUE]
    if not outcomes:
        return Outcome(Verdict.UNKNOWN, "there is no scenario")
    if not bad:
        return Outcome(Verdict.TRUE, f"the last run of each of {count(len(outcomes), 'variant')} is true")
    worst = merge(outcome.verdict for outcome in bad)
    said = [outcome.seen for outcome in bad if outcome.verdict is worst]
    return Outcome(worst, f"{len(outcomes) - len(bad)} of {count(len(outcomes), 'variant')} true; {_few(said)}")


def _verified(run: LastRun, facts: Facts) -> Outcome:
    name = f"{run.scenario} {run.variant}"
    if run.run is None or run.verdict is None:
        return Outcome(Verdict.UNKNOWN, f"{name}: never run")
    if run.verdict is not Verdict.TRUE:
        why = f" ({', '.join(run.unlike)})" if run.unlike else ""
        return Outcome(run.verdict, f"{name}: {run.run} is {run.verdict.value}{why}")
    if not same(run.commit, facts.commit):
        return Outcome(Verdict.UNKNOWN, f"{name}: {run.run} is of {_named(run.commit)}, not of {_named(facts.commit)}")
    if run.age_days is None or run.age_days > facts.max_age_days:
        return Outcome(Verdict.UNKNOWN, f"{name}: {run.run} is older than {facts.max_age_days:g} days")
    if run.unlike:
        return Outcome(Verdict.UNKNOWN, f"{name}: {run.run} was not the scenario as it is now: {', '.join(run.unlike)}")
    return Outcome(Verdict.TRUE, f"{name}: {run.run} is true")


def policies(facts: Facts) -> Outcome:
    """Every rule holds for every rendered environment."""
    if isinstance(facts.policies, Missing):
        return Outcome(Verdict.UNKNOWN, facts.policies.why)
    breaches = [f"{check.environment}: {breach}" for check in facts.policies for breach in check.breaches]
    if breaches:
        return Outcome(Verdict.FALSE, f"{count(len(breaches), 'breach', 'breaches')}: {_few(breaches)}")
    if not facts.policies or not all(check.rules and check.objects for check in facts.policies):
        return Outcome(Verdict.UNKNOWN, "nothing was rendered, so no rule was applied")
    objects = sum(check.objects for check in facts.policies)
    names = ", ".join(check.environment for check in facts.policies)
    return Outcome(Verdict.TRUE, f"{facts.policies[0].rules} rules hold for {objects:,} objects of {names}")


ITEMS: Final = (
    Item("tls", "TLS ends at the edge: 1.3, nothing older", tls),
    Item("blocking-calls", "no blocking call on an event loop", blocking_calls, from_staging=True),
    Item("snapshot-isolation", "training reads one snapshot of every shard", snapshot_isolation, from_staging=True),
    Item(
        "testcontainers",
        "integration tests ran in containers",
        partial(tests_ran, package=TESTCONTAINERS, words="Testcontainers tests"),
    ),
    Item("shared-contract", "one contract for whoever makes and whoever reads vectors", shared_contract),
    Item("memory-split", "H2O: 70 % heap, 30 % native", memory_split, from_staging=True),
    Item("readiness", "readiness is the cluster's consensus", readiness, from_staging=True),
    Item("verified", "the last run of every scenario is true", verified, from_staging=True),
    Item("policies", "policies hold for the rendered resources", policies),
    Item(
        "pulumi-engine",
        "the Pulumi engine's tests ran",
        partial(tests_ran, package=ENGINE, words="Pulumi engine tests"),
    ),
)


def _all(outcomes: Sequence[Outcome]) -> Outcome:
    """The worst verdict, with what those of it saw; all of it when nothing is wrong."""
    worst = merge(outcome.verdict for outcome in outcomes)
    return Outcome(worst, "; ".join(outcome.seen for outcome in outcomes if outcome.verdict is worst))


def _few(words: Iterable[str]) -> str:
    listed = list(words)
    more = f" and {len(listed) - SHOWN} more" if len(listed) > SHOWN else ""
    return "; ".join(listed[:SHOWN]) + more


def _named(commit: str | None) -> str:
    return commit or "an unknown commit"
