"""What the figures draw: a line for each shard that is written to, or for each replica that predicts."""

from __future__ import annotations

from dataclasses import replace

from experiments.history import History
from experiments.record import Rates, RunRecord
from experiments.report.series import Bins, latencies, rates
from loadtests.record import NO_SHARD, Kind
from tests.unit.experiments import direct
from tests.unit.experiments.judging import history_of

S = 1_000_000_000
MS = 1_000_000
MEMBERS = ("shard-0-0", "api-0", "api-1", "api-2")
START = direct.AT


def predictions(*, answered: dict[str, int], took_ms: float = 10.0) -> History:
    """So many in one second by each replica, evenly; the last one a hundred times slower."""
    rows = []
    for member, count in answered.items():
        for number in range(count):
            due = START + number * S // count
            slow = 100 if member == list(answered)[-1] else 1
            rows.append({
                "kind": Kind.PREDICT, "shard": NO_SHARD, "server": MEMBERS.index(member),
                "sched_ns": due, "start_ns": due, "end_ns": due + int(took_ms * slow * MS / 100),
            })  # fmt: skip
    return history_of(rows)


def of_replicas(member: str, load: Rates) -> RunRecord:
    return direct.run(member, rates=load).model_copy(update={"members": MEMBERS})


def test_without_writes_each_replica_that_answered_has_its_rate_and_its_p99() -> None:
    run = of_replicas("api-1", Rates(predict=100, write=0, write_api=0, read=0))
    history = predictions(answered={"api-0": 60, "api-1": 40})
    bins = replace(Bins.of((START, START + S)), width_ns=S, count=1)

    by_name = {line.name: line for line in rates(history, run, bins)}
    assert {name: line.values[0] for name, line in by_name.items()} == {"api-0": 60, "api-1": 40, "predictions": 100}
    assert (by_name["api-0"].style, by_name["api-1"].style) == ("s2", "s1")  # the struck one
    p99 = {line.name: line.values[0] for line in latencies(history, run, bins)}
    assert p99["p99, api-0"] == 0.1
    assert p99["p99, api-1"] == 10.0
    assert set(p99) == {"p99, api-0", "p99, api-1", "predict p99", "predict p50"}


def test_where_shards_are_written_to_they_have_the_lines() -> None:
    run = of_replicas("api-1", Rates(predict=100, write=60, write_api=0, read=0))
    bins = Bins.of((START, START + S))
    names = [line.name for line in rates(predictions(answered={"api-0": 60, "api-1": 40}), run, bins)]
    assert names == [f"writes, shard {entry.shard}" for entry in run.shards] + ["predictions"]
