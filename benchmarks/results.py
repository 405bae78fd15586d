"""Every round and every step as a row, with machine and versions; rows are only ever added."""

from __future__ import annotations

import csv
import datetime
import os
import platform as machine
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Final

from benchmarks import contest, stack
from benchmarks.measured import Measured
from benchmarks.rivals import LOCKED, PEERS

Row = Mapping[str, object]

DECIMALS: Final = 3
MACHINE: Final = ("day", "commit", "machine", "versions")
LOAD: Final = ("per_second", "p50_ms", "p95_ms", "p99_ms", "max_ms", "requests", "late", "errors")
CONTEST: Final = (*MACHINE, "server", "round", "connections", *LOAD)
COSTS: Final = ("client", "edge", "replicas", "redis", "others")
STACK: Final = (*MACHINE, "step", "rate", "entities", *LOAD, *(f"{who}_us" for who in COSTS), "replica_rss_mb")
OURS: Final = ("fastapi", "uvicorn", "uvloop", "pydantic", "redis", "jpype1", "h2o")


def contest_rows(results: Iterable[contest.Result], where: Row) -> list[Row]:
    return [
        {**where, "server": each.rival.name, "round": number, "connections": contest.CONNECTIONS, **_load(measured)}
        for each in results
        for number, measured in enumerate(each.rounds, 1)
    ]


def stack_rows(steps: Iterable[stack.Step], where: Row) -> list[Row]:
    return [
        {
            **where,
            "step": step.name,
            "rate": step.rate or "most",
            "entities": step.entities or "",
            **_load(step.measured),
            **{f"{who}_us": round(step.cost[who], 1) for who in COSTS},
            "replica_rss_mb": round(step.replica_rss_mb, 1),
        }
        for step in steps
    ]


def _load(measured: Measured) -> dict[str, object]:
    values = {name: value for name, value in asdict(measured).items() if name != "seconds"}
    return {"per_second": round(measured.rate, 1)} | {
        name: round(value, DECIMALS) if isinstance(value, float) else value for name, value in values.items()
    }


def where(commit: str) -> Row:
    """What a row says about the place and the time that it comes from."""
    ours = [f"{name} {version(name)}" for name in OURS]
    return {
        "day": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "commit": commit,
        "machine": f"{os.cpu_count()} x {cpu_name(Path('/proc/cpuinfo').read_text())}",
        "versions": "; ".join([f"python {machine.python_version()}", *ours, *peer_versions()]),
    }


def cpu_name(cpuinfo: str) -> str:
    found = re.search(r"^model name\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    return found.group(1).strip() if found else machine.machine()


def peer_versions() -> list[str]:
    """From the lock files."""
    found = []
    for name in LOCKED:
        pinned = re.search(rf"^{name}==([^\s;]+)", (PEERS / f"{name}.lock").read_text(), re.MULTILINE)
        found.append(f"{name} {pinned.group(1) if pinned else 'unknown'}")
    return found


def append(path: Path, columns: tuple[str, ...], rows: Iterable[Row]) -> None:
    """The file gets its header with its first row."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, columns, lineterminator="\n")
        if fresh:
            writer.writeheader()
        writer.writerows(rows)
