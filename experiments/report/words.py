"""The report's words: values with their units, targets, and what happened in two plain sentences."""

from __future__ import annotations

import datetime
from typing import Final

from experiments.checkers.fault import NS_PER_S
from experiments.checkers.finding import Finding, Verdict, count
from experiments.checkers.validity import VALIDITY
from experiments.record import FaultRecord, RunRecord
from experiments.scenario import Promise
from experiments.verdict import Judged, Judgement
from loadtests.profiles import PROFILES

_SIGNS: Final = {"<": "< ", "<=": "\N{LESS-THAN OR EQUAL TO} ", "==": "", ">=": "\N{GREATER-THAN OR EQUAL TO} "}
_UNITS: Final = {"s": " s", "ms": " ms", "%": " %", "x": " \N{MULTIPLICATION SIGN}"}
"""Units that stand beside their number; a counted thing is named in the promise's title."""

COARSE_S: Final = 10
"""From here on a duration is shown in tenths of a second."""

FULL_COMMIT: Final = 40
SHORT_COMMIT: Final = 7
"""Hex digits of a commit's name, in full and as people write it."""

MOST_CAUSES: Final = 2
"""So many causes fit into a sentence; the page lists all."""

DONE: Final = {
    "SIGKILL": "was killed",
    "SIGSTOP": "was stopped and answered nothing",
    "block-loop": "had its event loop blocked",
    "DEL": "lost all hot keys at once",
    "PEXPIRE": "had all hot keys pass their soft expiry at once",
    "reload": "had its model reloaded again and again",
    "restart": "was restarted in turn",
}
"""What each method of a fault did to a member that belongs to no shard."""

PRIMARY: Final = {
    ("SIGKILL", "server"): "was killed with all its processes",
    ("SIGKILL", "member"): "was killed with its warden and all other processes",
    ("SIGKILL", "postgres"): "was bereft of its Postgres, killed under a living Patroni,",
    ("SIGKILL", "patroni"): "was bereft of its Patroni, killed beside a living Postgres,",
    ("SIGSTOP", "patroni"): "was left with a Patroni that stands still",
    ("SIGSTOP", "member"): "was stopped with its warden and all other processes",
    ("isolate", "network"): "was cut off from etcd and its replicas",
    ("switchover", "leadership"): "was relieved of its leadership in good order",
}
"""What each fault did to a shard's primary."""

NOTHING: Final = "\N{EN DASH}"


def done(fault: FaultRecord) -> str:
    """What the fault did to its member; a killed member that was held down did not come back by itself."""
    held = " and held down" if fault.method == "SIGKILL" and fault.hold else ""
    return DONE[fault.method] + held


def number(value: float, unit: str) -> str:
    """`0.262 s`, `26.4 s`, `99.8 %`, `11,842`."""
    suffix = _UNITS.get(unit, "")
    if unit == "s":
        places = 3 if abs(value) < 1 else 2 if abs(value) < COARSE_S else 1
        return f"{value:.{places}f}{suffix}"
    if suffix:
        return f"{value:.1f}{suffix}"
    if unit == "difference":
        return f"{value:.1g}"
    return f"{value:,.0f}"


def measured(promise: Promise, finding: Finding) -> str:
    return NOTHING if finding.value is None else number(finding.value, promise.unit)


def target(promise: Promise) -> str:
    """`< 2 s`, `0`, `>= 99 %`."""
    return f"{_SIGNS[promise.compare]}{promise.target:,g}{_UNITS.get(promise.unit, '')}"


def share_of_target(promise: Promise, finding: Finding) -> float | None:
    """How much of what was allowed was used, 0 to 1 and above; for a least value, how much of it was reached."""
    if finding.value is None:
        return None
    if promise.target == 0:
        return 0.0 if finding.value == 0 else 2.0
    return finding.value / promise.target


def after_fault(t_ns: int, run: RunRecord) -> str:
    """A time of the story: to the millisecond near the fault, to the tenth of a second further away."""
    after_s = 0.0 if run.fault is None else (t_ns - run.fault.t_ns) / NS_PER_S
    return (f"{after_s:.3f} s" if abs(after_s) < COARSE_S else f"{after_s:.1f} s").replace("-", "\N{MINUS SIGN}")


def duration_ms(ms: float) -> str:
    """`41 ms`, `20.0 s`."""
    return f"{ms:.0f} ms" if ms < 1000 else f"{ms / 1000:.2f} s"  # noqa: PLR2004 - one second


def when(run: RunRecord) -> str:
    """The run's start on the wall clock, UTC."""
    start = run.windows.whole[0] if run.windows.whole is not None else run.wall_anchor.monotonic_ns
    at = datetime.datetime.fromtimestamp(run.wall_anchor.unix_ns_at(start) / 1e9, tz=datetime.UTC)
    return f"{at.day} {at:%b %Y %H:%M:%S} UTC"


def where(run: RunRecord) -> str:
    """`local, 2 shards of 3, 21 Nov 2026 10:31:07 UTC, seed 4711, commit 3f9c2ab`."""
    sizes = sorted({len(entry.members) for entry in run.shards})
    shards = f"{count(len(run.shards), 'shard')} of {' or '.join(map(str, sizes))}"
    parts = [run.environment, shards, when(run), f"seed {run.seed}"]
    if run.commit:
        parts.append(f"commit {run.commit[:SHORT_COMMIT] if len(run.commit) == FULL_COMMIT else run.commit}")
    return ", ".join(parts)


def what_was_done(run: RunRecord) -> str:
    """The first sentence: the fault and the load around it."""
    load = f"{the_load(run)} a second were running{_changing(run)}"
    if run.fault is None:
        return f"No fault was done while {load}."
    if run.fault.shard is None:
        struck = " and ".join(f"{fault.member} {done(fault)}" for fault in run.faults)
        if not run.fault.proven:
            return f"It is not shown that {struck} while {load}."
        # a member's name is written as it is, also at the beginning of a sentence
        return f"{struck.replace('every ', 'Every ', 1) if struck.startswith('every ') else struck} while {load}."
    sentences = ", and that of shard ".join(_to_a_primary(fault) for fault in run.faults)
    return f"The primary of shard {sentences} while {load}."


def _changing(run: RunRecord) -> str:
    """`, as profile peak has it: three times the rates half-way`; nothing where they were constant."""
    profile = PROFILES[run.profile]
    return "" if profile.constant else f", as profile {run.profile} has it: {profile.title}"


def _to_a_primary(fault: FaultRecord) -> str:
    """`1 was killed with all its processes`."""
    done = PRIMARY[fault.method, fault.scope]
    return f"{fault.shard} {done if fault.proven else done.replace('was', 'was to be', 1)}"


def the_load(run: RunRecord) -> str:
    """`300 writes, 60 reads and 100 predictions`; what was not sent is not named."""
    shards = len(run.shards)
    rates = (
        ((run.rates.write + run.rates.write_api) * shards, "writes"),
        ((run.rates.read + run.rates.read_api) * shards, "reads"),
        (run.rates.predict, "predictions"),
    )
    parts = [f"{rate:g} {name}" for rate, name in rates if rate]
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts) or "no operations"


def what_came_of_it(judgement: Judgement) -> str:
    """The second sentence: what it means, the worst first."""
    match judgement.verdict:
        case Verdict.TRUE:
            return _kept(judgement)
        case Verdict.FALSE:
            broken = [entry for entry in judgement.judged if entry.finding.verdict is Verdict.FALSE]
            first = broken[0]
            rest = f", and {len(broken) - 1} more" if len(broken) > 1 else ""
            words = "was broken" if len(broken) == 1 else "were broken"
            return (
                f"{count(len(broken), 'promise')} of {len(judgement.judged)} {words}: {expected_and_seen(first)}{rest}."
            )
        case Verdict.UNKNOWN:
            unproven = [entry for entry in judgement.judged if entry.finding.verdict is Verdict.UNKNOWN]
            causes = [entry.promise.title for entry in unproven if entry.promise.checker in VALIDITY]
            because = f", for it is not shown that {' and that '.join(causes[:MOST_CAUSES])}" if causes else ""
            return (
                f"This run is no proof{because}: {len(unproven)} of {len(judgement.judged)} promises could not be "
                "judged, and none was seen to be broken."
            )


def _kept(judgement: Judgement) -> str:
    next_ack, lost = judgement.of("next_ack"), judgement.of("lost_writes")
    parts: list[str] = []
    if next_ack is not None and next_ack.value is not None:
        layers = judgement.recovery.layers if judgement.recovery is not None else ()
        promoted = any(layer.name == "promote" and layer.seen is not None for layer in layers)
        new = " on a new primary" if promoted else ""
        parts.append(f"The shard took its next write {number(next_ack.value, 's')} later{new}.")
    if lost is not None:
        parts.append(f"Of {lost.out_of} acknowledged, none was lost.")
    out, bad = judgement.of("out_of_rotation"), judgement.of("bad_share")
    if out is not None and out.value is not None:
        parts.append(f"The edge took it out of rotation {number(out.value, 's')} later.")
    if bad is not None:
        parts.append(f"Of {bad.out_of} since then, {bad.reason.split(' bad of')[0]} were bad.")
    whole = judgement.of("cloud_whole_again")
    if whole is not None and whole.value is not None:
        parts.append(f"{number(whole.value, 's')} later every node was in one healthy cloud again.")
    computed = judgement.of("computations_per_key")
    if computed is not None and computed.value is not None:
        parts.append(f"Each of {computed.out_of} was computed {number(computed.value, 'x').split()[0]} times.")
    return " ".join(parts) or "Every promise was kept."


def expected_and_seen(entry: Judged) -> str:
    """`acknowledged writes lost: 3, promised 0`."""
    seen = measured(entry.promise, entry.finding)
    seen = "nothing was measured" if seen == NOTHING else seen
    return f"{entry.promise.title}: {seen}, promised {target(entry.promise)}"
