"""A run's steps: done once however often they are asked, and nothing half done when one fails."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from services.contracts.events import read_events
from services.contracts.shards import HostPort, ShardEndpoints
from services.etl import run, snapshot
from services.etl.errors import NoTrainingData
from services.etl.run import EVENTS, KEPT_RUNS, Order, Run, RunConfig
from services.etl.snapshot import Cut

VECTOR = {
    "month": 1, "day_of_week": 2, "departure_minute": 315, "arrival_minute": 499, "distance": 1400.0,
    "carrier": "UA", "origin": "EWR", "dest": "IAH",
}  # fmt: skip
ORDER = Order(run=7, ordered_at=datetime(2026, 11, 28, 17, 0, 5), seed=1)  # noqa: DTZ001 - as Mage says it


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    nowhere = ShardEndpoints(
        shard=0,
        hosts=(HostPort(name="m", host="127.0.0.1", port=1),),
        dbname="d",
        user="u",
        passfile=Path("/none"),
    )
    return RunConfig(
        environment="unit",
        member="mage-0",
        etcd=("http://127.0.0.1:1",),
        shards=(nowhere,),
        registry=nowhere,
        artifacts=str(tmp_path / "artifacts"),
        directory=tmp_path,
    )


@pytest.fixture
def cuts(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The feature store's place: a cut of one row a month, and how often it was taken."""
    taken: list[Path] = []

    def take(shards: object, path: Path) -> Cut:
        taken.append(path)
        months = [datetime(2013, month, 10, tzinfo=UTC) for month in (1, 2, 3)]
        path.write_text("".join(f"{int(m.timestamp())}\te\t0\t{json.dumps(VECTOR)}\n" for m in months))
        return Cut(rows=3, batches=(1,), snapshots=())

    monkeypatch.setattr(snapshot, "take", take)
    return taken


def said(config: RunConfig, order: Order = ORDER) -> list[tuple[str, dict[str, Any]]]:
    return [(event.kind, dict(event.data)) for event in read_events(config.directory / order.version / EVENTS)]


def test_a_step_that_is_asked_again_gives_its_answer_again(config: RunConfig, cuts: list[Path]) -> None:
    first = [Run(config, ORDER).answer(step) for step in ("load", "transform", "split")]
    again = [Run(config, ORDER).answer(step) for step in ("load", "transform", "split")]
    assert first == again
    assert json.loads(first[2]) == ["2013-02", "2013-03"]
    assert len(cuts) == 1
    assert [kind for kind, _ in said(config)] == ["loaded", "transformed", "planned"]


def test_another_order_takes_a_cut_of_its_own(config: RunConfig, cuts: list[Path]) -> None:
    other = ORDER.model_copy(update={"run": 8})
    Run(config, ORDER).answer("load")
    Run(config, other).answer("load")
    assert [path.parent.name for path in cuts] == ["20261128-170005-7", "20261128-170005-8"]


def test_a_step_that_is_asked_twice_at_once_is_done_once(
    config: RunConfig, cuts: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    inside, let_go = threading.Event(), threading.Event()
    load = run.STEPS["load"]

    def slow(one: Run) -> str:
        inside.set()
        assert let_go.wait(10)
        return load(one)

    monkeypatch.setitem(run.STEPS, "load", slow)
    answers: list[str] = []
    askers = [threading.Thread(target=lambda: answers.append(Run(config, ORDER).answer("load"))) for _ in range(2)]
    for asker in askers:
        asker.start()
    assert inside.wait(10)
    let_go.set()
    for asker in askers:
        asker.join(10)
    assert len(answers) == 2
    assert len(set(answers)) == 1
    assert len(cuts) == 1


def test_a_step_that_fails_says_why_and_is_tried_again(
    config: RunConfig, cuts: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing(*_: object) -> Cut:
        raise NoTrainingData("0 closed batches")

    with monkeypatch.context() as empty:
        empty.setattr(snapshot, "take", nothing)
        with pytest.raises(NoTrainingData):
            Run(config, ORDER).answer("load")
    assert said(config) == [("failed", {"step": "load", "error": "0 closed batches"})]
    Run(config, ORDER).answer("load")
    assert [kind for kind, _ in said(config)] == ["failed", "loaded"]


def test_a_month_that_no_split_is_tested_on_is_named(config: RunConfig, cuts: list[Path]) -> None:
    for step in ("load", "transform", "split"):
        Run(config, ORDER).answer(step)
    with pytest.raises(NoTrainingData, match=r"no split is tested on 2013-01: \['2013-02', '2013-03'\] are"):
        Run(config, ORDER.model_copy(update={"month": "2013-01"})).answer("train")


def test_only_the_newest_runs_are_kept(config: RunConfig, cuts: list[Path]) -> None:
    orders = [
        ORDER.model_copy(update={"run": number, "ordered_at": datetime(2026, 1, number, tzinfo=UTC)})
        for number in range(1, KEPT_RUNS + 4)
    ]
    for order in orders:
        Run(config, order).answer("load")
    kept = {path.name for path in config.directory.glob("2*")}
    assert kept == {order.version for order in orders[-KEPT_RUNS:]}


Command = Callable[[str, str], subprocess.CompletedProcess[str]]


@pytest.fixture
def command(config: RunConfig) -> Command:
    """The program as Mage's blocks start it."""
    path = config.directory / "etl.json"
    path.write_text(config.model_dump_json())

    def start(step: str, order: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "services.etl.run", str(path), step],
            input=order,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    return start


@pytest.mark.parametrize(
    ("step", "order", "code", "words"),
    [
        ("load", ORDER.model_dump_json(), 1, "shard 0"),
        ("load", "{}", 1, "Field required"),
        ("load", '{"run": 0, "ordered_at": "2026-01-01T00:00:00", "seed": 1}', 1, "greater than or equal to 1"),
        ("dance", "{}", 2, "usage:"),
    ],
)
def test_what_cannot_be_done_is_one_line(command: Command, step: str, order: str, code: int, words: str) -> None:
    done = command(step, order)
    assert done.returncode == code
    assert words in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
