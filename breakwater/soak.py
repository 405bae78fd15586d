"""Soak: the same scenario again and again with other seeds, each run a row in a file that is kept."""

from __future__ import annotations

import csv
import datetime
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from breakwater import verification
from breakwater.verification import Finished
from experiments import run as runs
from experiments.verdict import Judgement

NS_PER_MS: Final = 1_000_000
COLUMNS: Final = (
    "utc",
    "commit",
    "environment",
    "scenario",
    "variant",
    "seed",
    "victim",
    "verdict",
    "next_ack_s",
    "detect_ms",
    "promote_ms",
    "route_ms",
    "client_ms",
    "lost_writes",
    "acknowledged_writes",
    "bad_on_other_shards",
    "bad_predictions",
    "reads_resume_s",
    "streaming_again_s",
    "load_kept_pct",
)


def soak(environment: str, scenario_name: str, *, repetitions: int, seed: int, out: Path) -> Iterator[Finished]:
    """Yield each finished run; seeds are drawn from `seed`, variants take turns."""
    scenario = verification.find_scenario(scenario_name)
    draw = random.Random(seed)  # noqa: S311 - repeatable choice, no secret
    for number in range(repetitions):
        variant = scenario.breakwater.variants[number % len(scenario.breakwater.variants)]
        order = runs.Order(environment, scenario, variant, draw.randrange(10_000), out)
        yield verification.verify(order)


def row_of(judgement: Judgement) -> dict[str, str]:
    """One run as a row; empty where nothing was measured."""
    run = judgement.run
    values = {entry.promise.id: entry.finding for entry in judgement.judged}

    def value(promise: str) -> str:
        finding = values.get(promise)
        return "" if finding is None or finding.value is None else f"{finding.value:.6g}"

    layers = {} if judgement.recovery is None else {layer.name: layer for layer in judgement.recovery.layers}

    def layer_ms(name: str) -> str:
        layer = layers.get(name)
        return "" if layer is None or layer.seen is None else f"{(layer.end_ns - layer.start_ns) / NS_PER_MS:.1f}"

    started = datetime.datetime.fromtimestamp(run.wall_anchor.unix_ns / 1e9, datetime.UTC)
    lost = values.get("lost-writes")
    return {
        "utc": started.isoformat(timespec="seconds"),
        "commit": run.commit or "",
        "environment": run.environment,
        "scenario": run.scenario,
        "variant": run.variant,
        "seed": str(run.seed),
        "victim": run.fault.member if run.fault else "",
        "verdict": judgement.verdict.value,
        "next_ack_s": value("next-ack"),
        "detect_ms": layer_ms("detect"),
        "promote_ms": layer_ms("promote"),
        "route_ms": layer_ms("route"),
        "client_ms": layer_ms("client"),
        "lost_writes": value("lost-writes"),
        "acknowledged_writes": "" if lost is None else str(lost.n),
        "bad_on_other_shards": value("other-shards"),
        "bad_predictions": value("predictions"),
        "reads_resume_s": value("reads-resume"),
        "streaming_again_s": value("old-primary"),
        "load_kept_pct": value("load-kept"),
    }


def append(path: Path, judgement: Judgement) -> None:
    """Add the run to the results, making the file with its header when it is not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = not path.exists()
    with path.open("a", newline="") as out:
        rows = csv.DictWriter(out, COLUMNS, lineterminator="\n")
        if fresh:
            rows.writeheader()
        rows.writerow(row_of(judgement))
