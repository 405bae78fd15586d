"""Every run of a soak as one row of a CSV file."""

from __future__ import annotations

import csv
import datetime
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from experiments.checkers.finding import Verdict
from experiments.verdict import Judgement

NS_PER_MS: Final = 1_000_000
LAYERS: Final = ("detect", "promote", "route", "client")
COLUMNS: Final = (
    *("day", "commit", "variant", "seed", "verdict", "next_ack_s", *(f"{name}_ms" for name in LAYERS)),
    *("resolution_ms", "reads_resume_s", "streaming_again_s", "acknowledged", "lost", "not_true"),
)
"""`acknowledged` counts writes of the run, `lost` those of them that were gone; `not_true` names promises."""


def row(judgement: Judgement) -> Mapping[str, object]:
    """One run as a row; what was not measured stays empty."""
    run, recovery = judgement.run, judgement.recovery
    day = datetime.datetime.fromtimestamp(run.wall_anchor.unix_ns / 1e9, datetime.UTC).date()
    measured = {name: finding.value for name in _MEASURES if (finding := judgement.of(name)) is not None}
    lost = judgement.of("lost_writes")
    layers = {
        layer.name: layer.end_ns - layer.start_ns for layer in (recovery.layers if recovery else ()) if layer.seen
    }
    return {
        "day": day.isoformat(),
        "commit": run.commit,
        "variant": run.variant,
        "seed": run.seed,
        "verdict": judgement.verdict.value,
        **{column: _rounded(measured.get(name)) for name, column in _MEASURES.items()},
        **{f"{name}_ms": _rounded(layers[name] / NS_PER_MS if name in layers else None) for name in LAYERS},
        "resolution_ms": _rounded(recovery.resolution_ns / NS_PER_MS if recovery else None),
        "acknowledged": lost.n if lost else None,
        "lost": _rounded(lost.value if lost else None),
        "not_true": " ".join(e.promise.id for e in judgement.judged if e.finding.verdict is not Verdict.TRUE),
    }


_MEASURES: Final = {
    "next_ack": "next_ack_s",
    "reads_resume": "reads_resume_s",
    "old_primary_streaming": "streaming_again_s",
}


def _rounded(value: float | None) -> float | int | None:
    if value is None:
        return None
    return int(value) if float(value).is_integer() else round(value, 3)


def append(path: Path, judgement: Judgement) -> None:
    """Add the run to the file, which gets its header with the first row."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
        if fresh:
            writer.writeheader()
        writer.writerow(row(judgement))
