"""Rows of CSV files: each run of a soak, each kill of S-01 with its layers, each promise that a control names."""

from __future__ import annotations

import csv
import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from breakwater.verification import ControlResult
from experiments.checkers.finding import Verdict
from experiments.commit import commit
from experiments.controls.catalogue import beside, expectations
from experiments.run import Order
from experiments.verdict import Judgement

NS_PER_MS: Final = 1_000_000
RUN_COLUMNS: Final = ("day", "commit", "round", "scenario", "variant", "seed", "verdict", "promises", "not_true")
"""`promises` counts those that were judged; `not_true` names those of them that were false or unknown, or says why the
run was not begun."""

LAYERS: Final = ("detect", "promote", "route", "client")
KILL_COLUMNS: Final = (
    *("day", "commit", "variant", "seed", "verdict", "next_ack_s", *(f"{name}_ms" for name in LAYERS)),
    *("resolution_ms", "reads_resume_s", "streaming_again_s", "acknowledged", "lost", "not_true"),
)
"""`acknowledged` counts writes of the run, `lost` those of them that were gone; `not_true` names promises."""

CONTROL_COLUMNS: Final = ("day", "commit", "control", "promise", "must_be", "is", "measured", "target", "detected")
"""`detected` is of the control as a whole: whether nothing at all was said otherwise than it must be."""
ANY: Final = "any"
"""Of a promise that depends on time and was broken beside the defect: nothing must be said of it."""


def run_row(judgement: Judgement, number: int) -> Mapping[str, object]:
    """One run of round `number` as a row."""
    return {
        **_origin(judgement),
        "round": number,
        "scenario": judgement.run.scenario,
        "variant": judgement.run.variant,
        "seed": judgement.run.seed,
        "verdict": judgement.verdict.value,
        "promises": len(judgement.judged),
        "not_true": _not_true(judgement),
    }


def not_begun_row(order: Order, number: int, reason: str) -> Mapping[str, object]:
    """A run of round `number` whose preflight failed, as a row: nothing is known of it but that and why."""
    return {
        "day": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "commit": commit(),
        "round": number,
        "scenario": order.scenario.breakwater.id,
        "variant": order.variant,
        "seed": order.seed,
        "verdict": Verdict.UNKNOWN.value,
        "promises": 0,
        "not_true": reason,
    }


def kill_row(judgement: Judgement) -> Mapping[str, object]:
    """One run of S-01 as a row; what was not measured stays empty."""
    recovery = judgement.recovery
    measured = {name: finding.value for name in _MEASURES if (finding := judgement.of(name)) is not None}
    lost = judgement.of("lost_writes")
    layers = {
        layer.name: layer.end_ns - layer.start_ns for layer in (recovery.layers if recovery else ()) if layer.seen
    }
    return {
        **_origin(judgement),
        "variant": judgement.run.variant,
        "seed": judgement.run.seed,
        "verdict": judgement.verdict.value,
        **{column: _rounded(measured.get(name)) for name, column in _MEASURES.items()},
        **{f"{name}_ms": _rounded(layers[name] / NS_PER_MS if name in layers else None) for name in LAYERS},
        "resolution_ms": _rounded(recovery.resolution_ns / NS_PER_MS if recovery else None),
        "acknowledged": lost.n if lost else None,
        "lost": _rounded(lost.value if lost else None),
        "not_true": _not_true(judgement),
    }


def control_rows(result: ControlResult) -> Sequence[Mapping[str, object]]:
    """One row for each promise that the control names, and for each that was broken beside its defect (`any`).

    What was not measured stays empty.
    """
    control, judgement = result.control, result.finished.judgement
    named = [(entry, must_be.value) for entry, must_be in expectations(control, judgement)]
    others = [(entry, ANY) for entry in beside(control, judgement) if entry.promise.id not in control.expected]
    return [
        {
            **_origin(judgement),
            "control": control.name,
            "promise": entry.promise.id,
            "must_be": must_be,
            "is": entry.finding.verdict.value,
            "measured": _rounded(entry.finding.value),
            "target": f"{entry.promise.compare} {entry.promise.target:g} {entry.promise.unit}",
            "detected": "no" if result.disagreements else "yes",
        }
        for entry, must_be in (*named, *others)
    ]


def _origin(judgement: Judgement) -> Mapping[str, object]:
    day = datetime.datetime.fromtimestamp(judgement.run.wall_anchor.unix_ns / 1e9, datetime.UTC).date()
    return {"day": day.isoformat(), "commit": judgement.run.commit}


def _not_true(judgement: Judgement) -> str:
    return " ".join(e.promise.id for e in judgement.judged if e.finding.verdict is not Verdict.TRUE)


_MEASURES: Final = {
    "next_ack": "next_ack_s",
    "reads_resume": "reads_resume_s",
    "old_primary_streaming": "streaming_again_s",
}


def _rounded(value: float | None) -> float | int | None:
    if value is None:
        return None
    return int(value) if float(value).is_integer() else round(value, 3)


def append_run(path: Path, judgement: Judgement, number: int) -> None:
    """Add the run of round `number` to the file, which gets its header with the first row."""
    _append(path, RUN_COLUMNS, run_row(judgement, number))


def append_not_begun(path: Path, order: Order, number: int, reason: str) -> None:
    """Add a run whose preflight failed to the same file."""
    _append(path, RUN_COLUMNS, not_begun_row(order, number, reason))


def append_kill(path: Path, judgement: Judgement) -> None:
    """Add the run of S-01 to the file, which gets its header with the first row."""
    _append(path, KILL_COLUMNS, kill_row(judgement))


def append_control(path: Path, result: ControlResult) -> None:
    """Add a control's promises to the file, which gets its header with the first row."""
    for row in control_rows(result):
        _append(path, CONTROL_COLUMNS, row)


def _append(path: Path, columns: Sequence[str], row: Mapping[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, columns, lineterminator="\n")
        if fresh:
            writer.writeheader()
        writer.writerow(row)
