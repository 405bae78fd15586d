"""Pools back at their size: what counts as back, seen at any moment, against a look at every sample."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.checkers.finding import Finding, Verdict
from experiments.checkers.redundancy import CHANCE, pools_back
from experiments.evidence import Evidence
from experiments.probes import pools
from experiments.probes.pools import pool_sizes
from infra.environment import EnvironmentFault
from services.contracts.events import Event, EventLog, read_events
from tests.unit.experiments.direct import event, promise, run
from tests.unit.experiments.judging import history_of

PROMISE = promise("s01.yaml", "pools")
BEFORE_S, LIFTED_S = -31.0, 10.0
Sample = tuple[float, int, int]


def sized(second: float, is_open: int, dialling: int = 0, member: str = "api-0", pool: str = "shard-0-write") -> Event:
    return event(second, "pools", "sized", member, **{pool: [is_open, dialling]})


def judged(*events: Event, other: bool = True, recovery_s: float = 70.0) -> Finding:
    """Events of api-0 beside an api-1 whose pool never changes."""
    seen = [*events, *([sized(BEFORE_S, 1, member="api-1")] if other else [])]
    evidence = Evidence(tuple(sorted(seen, key=lambda each: each.t_ns)))
    return pools_back(history_of([]), evidence, PROMISE, run("shard-0-0", fault_s=LIFTED_S, recovery_s=recovery_s))


@pytest.mark.parametrize(
    ("samples", "back_s"),
    [
        # never changed; changed and back before the end of the fault; after it
        ([(BEFORE_S, 2, 0)], 0.0),
        ([(BEFORE_S, 2, 0), (0.5, 0, 2), (3.0, 2, 0)], 0.0),
        ([(BEFORE_S, 2, 0), (0.5, 0, 2), (13.0, 2, 0)], 3.0),
        # too many, some missing, none at all are not back; fewer that are enough are
        ([(BEFORE_S, 2, 0), (0.5, 5, 0), (12.0, 4, 0), (15.0, 3, 0), (16.0, 2, 0)], 5.0),
        ([(BEFORE_S, 2, 0), (0.5, 1, 1), (14.0, 1, 0)], 4.0),
        ([(BEFORE_S, 2, 0), (0.5, 0, 0), (16.0, 1, 0)], 6.0),
        # the most that it had at any time before counts
        ([(BEFORE_S, 1, 0), (-20.0, 3, 0), (-10.0, 2, 0), (0.5, 5, 0), (12.0, 4, 0)], 2.0),
        # a first return counts, what load does afterwards is no longer the fault's
        ([(BEFORE_S, 2, 0), (12.0, 2, 1), (13.0, 2, 0), (14.0, 4, 0)], 0.0),
    ],
)
def test_when_a_pool_is_back(samples: list[Sample], back_s: float) -> None:
    found = judged(*(sized(*sample) for sample in samples))
    assert (found.verdict, found.n) == (Verdict.TRUE, 2)
    assert found.value == pytest.approx(back_s)


def test_a_pool_that_does_not_come_back_is_named_with_what_it_has() -> None:
    found = judged(sized(BEFORE_S, 2), sized(0.5, 1, 3))
    assert found.verdict is Verdict.FALSE
    assert found.reason == (
        "70.0 s after the fault's end not back: api-0 shard-0-write (1 open, 3 being dialled; at most 2 before)"
    )
    assert judged(sized(BEFORE_S, 2), sized(0.5, 1, 3), recovery_s=59.0).verdict is Verdict.UNKNOWN


@pytest.mark.parametrize(
    ("events", "other", "why"),
    [
        ([], True, "api-0 told nothing of its pools"),
        ([sized(BEFORE_S, 2)], False, "api-1 told nothing of its pools"),
        ([sized(0.5, 2)], True, "api-0 shard-0-write was not seen before the fault"),
    ],
)
def test_who_was_not_seen_proves_nothing(events: list[Event], other: bool, why: str) -> None:
    found = judged(*events, other=other)
    assert (found.verdict, found.reason) == (Verdict.UNKNOWN, why)


def test_of_pools_that_are_back_at_once_the_same_is_named_whoever_judges() -> None:
    names = ["shard-1-write", "shard-0-write", "shard-1-read", "shard-0-read"]
    found = judged(event(BEFORE_S, "pools", "sized", "api-0", **{name: [1, 0] for name in names}))
    assert found.reason.endswith("api-0 shard-0-read last")


def test_a_silent_replica_is_not_back() -> None:
    silent = event(5.0, "pools", "silent", "api-0")
    found = judged(sized(BEFORE_S, 2), silent)
    assert found.verdict is Verdict.FALSE
    assert "(silent; at most 2 before)" in found.reason
    assert judged(sized(BEFORE_S, 2), silent, sized(20.0, 2)).value == pytest.approx(10.0)


changes = st.lists(
    st.tuples(st.integers(1, 60).map(float), st.integers(0, 5), st.integers(0, 2)),
    max_size=12,
    unique_by=lambda s: s[0],
)


@given(changes, st.integers(1, 3))
def test_the_moment_is_that_of_a_look_at_every_half_second(after: list[Sample], before: int) -> None:
    samples = sorted([(BEFORE_S, before, 0), *after])

    def size_at(second: float) -> Sample:
        return [sample for sample in samples if sample[0] <= second][-1]

    looks = [LIFTED_S + tick / 2 for tick in range(141)]
    wanted = next((at for at in looks if 1 <= size_at(at)[1] <= before + CHANCE and size_at(at)[2] == 0), None)
    found = judged(*(sized(*sample) for sample in samples))
    if wanted is None:
        assert found.verdict is Verdict.FALSE
    else:
        assert found.value == pytest.approx(wanted - LIFTED_S)


PAGE = """# HELP breakwater_api_pool_connections Connections
# TYPE breakwater_api_pool_connections gauge
breakwater_api_pool_connections{pool="shard-0-write",state="open"} 3.0
breakwater_api_pool_connections{pool="shard-0-write",state="dialling"} 1.0
breakwater_api_pool_connections{pool="shard-0-read",state="open"} 2.0
breakwater_api_pool_connections{pool="shard-0-read",state="dialling"} 0.0
breakwater_api_in_flight 7.0
"""


def test_a_page_of_metrics_has_both_counts_of_each_pool() -> None:
    assert pool_sizes(PAGE) == {"shard-0-write": (3, 1), "shard-0-read": (2, 0)}
    assert pool_sizes("") == {}


def test_what_a_probe_writes_is_what_the_checker_reads() -> None:
    sizes: dict[str, Any] = dict(pool_sizes(PAGE.replace('"dialling"} 1.0', '"dialling"} 0.0')))
    line = event(BEFORE_S, "pools", "sized", "api-0", **sizes).to_line()
    found = judged(Event.from_line(line))
    assert found.verdict is Verdict.TRUE


class Replicas:
    """Answers with the pages that it is given, one a round; then it stops who watches."""

    def __init__(self, stop: threading.Event, pages: dict[str, list[str | None]]) -> None:
        self._stop = stop
        self._pages = pages

    def members(self, _: str) -> list[SimpleNamespace]:
        return [SimpleNamespace(name=name) for name in self._pages]

    def metrics(self, member: str) -> str | None:
        page = self._pages[member].pop(0)
        if not any(self._pages.values()):
            self._stop.set()
        if page == "fault":
            raise EnvironmentFault("no such pod")
        return page


def test_a_change_is_told_once_and_so_is_silence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "POLL_S", 0.0)
    stop, log = threading.Event(), EventLog(tmp_path / "events.jsonl")
    fewer = PAGE.replace("} 3.0", "} 2.0")
    environment: Any = Replicas(stop, {"api-0": [PAGE, PAGE, fewer, None], "api-1": [PAGE, "fault", None, PAGE]})
    pools.watch_pools(environment, log, stop)
    log.close()
    told = [(e.member, e.kind, e.data.get("shard-0-write")) for e in read_events(tmp_path / "events.jsonl")]
    assert [each for each in told if each[0] == "api-0"] == [
        ("api-0", "sized", [3, 1]), ("api-0", "sized", [2, 1]), ("api-0", "silent", None)
    ]  # fmt: skip
    assert [each for each in told if each[0] == "api-1"] == [
        ("api-1", "sized", [3, 1]), ("api-1", "silent", None), ("api-1", "sized", [3, 1])
    ]  # fmt: skip
