"""Log lines around the fault: of the right members and seconds, in every server's own words, without a secret."""

from __future__ import annotations

import datetime
import logging
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from experiments.logs import MOST_PER_MEMBER, affected, collect_logs, read_logs
from experiments.record import RunRecord, ShardRecord, WallAnchor, Windows
from experiments.report import render
from experiments.verdict import judge_run
from services.api.logs import JsonFormatter
from services.contracts.events import Event
from tests.unit.experiments.judging import SHORT
from tests.unit.experiments.synthetic_run import CLOCK, KILL, MS, NEW, OLD, S, Synthetic

RECORD = Synthetic().record()
KILLED = datetime.datetime.fromtimestamp(RECORD.wall_anchor.unix_ns_at(KILL) / S, tz=datetime.UTC)


def postgres(after_s: float, words: str) -> str:
    at = KILLED + datetime.timedelta(seconds=after_s)
    return f"{at:%Y-%m-%d %H:%M:%S}.{at.microsecond // 1000:03d} UTC [123] {words}\n"


def patroni(after_s: float, words: str) -> str:
    at = (KILLED + datetime.timedelta(seconds=after_s)).astimezone()
    return f"{at:%Y-%m-%d %H:%M:%S},{at.microsecond // 1000:03d} INFO: {words}\n"


def event(after_s: float, kind: str, member: str | None = None, source: str = "fault") -> Event:
    return Event(KILL + round(after_s * S), CLOCK, source, member, kind)


@pytest.fixture
def move(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Put the machine into a time zone."""

    def to(zone: str) -> None:
        monkeypatch.setenv("TZ", zone)
        time.tzset()

    yield to
    monkeypatch.undo()
    time.tzset()


def test_only_lines_around_the_fault_are_kept_in_order_and_without_secrets(tmp_path: Path) -> None:
    log, other = tmp_path / "postgres-Sun.log", tmp_path / "patroni.log"
    log.write_text(
        postgres(-60, "long before") + postgres(0.25, "LOG: selected new timeline") + postgres(3600, "long after")
    )
    other.write_text("no stamp\n" + patroni(0.1, "promoted, password=hunter2 token: abc"))

    assert collect_logs(tmp_path, RECORD, [], {OLD: [log, other]}) == 2

    first, second = read_logs(tmp_path)
    assert (first.member, first.file, first.text) == (OLD, "patroni.log", "INFO: promoted, password=*** token: ***")
    assert second.text == "[123] LOG: selected new timeline"
    assert abs(second.t_ns - KILL - 250 * MS) <= MS


def test_a_replicas_lines_are_read_as_people_read_them_whatever_the_machines_zone(
    tmp_path: Path, move: Callable[[str], None]
) -> None:
    move("Asia/Tokyo")
    formatter = JsonFormatter("api-0")
    line = logging.LogRecord("services.api.access", logging.WARNING, "", 0, "request", None, None)
    line.fields = {"route": "/v1/predict", "status": 503, "token": "abc"}
    failed = logging.LogRecord("services.api.layer", logging.ERROR, "", 0, "it %s", ("failed",), None)
    try:
        int("of this")
    except ValueError:
        failed.exc_info = sys.exc_info()
    log = tmp_path / "api.log"
    for record in (line, failed):
        record.created = KILLED.timestamp() + 0.5
        with log.open("a") as file:
            file.write(formatter.format(record) + "\n")
    with log.open("a") as file:
        file.write('{"time": "' + f"{KILLED:%Y-%m-%dT%H:%M:%S}" + '.999+00:00", half an object\n')
    assert collect_logs(tmp_path, RECORD, [], {OLD: [log]}) == 3
    texts = [line.text for line in read_logs(tmp_path)]
    assert "warning services.api.access: request route=/v1/predict status=503 token=***" in texts
    assert "error services.api.layer: it failed ValueError: invalid literal for int() with base 10: 'of this'" in texts
    assert '", half an object' in texts


def test_without_a_fault_there_is_nothing_to_keep(tmp_path: Path) -> None:
    record = Synthetic(fault=False).record()
    assert collect_logs(tmp_path, record, [], {OLD: []}) == 0
    assert read_logs(tmp_path) == ()


def test_a_report_has_them_folded_when_the_run_is_true(tmp_path: Path) -> None:
    log = tmp_path / "postgres-Sun.log"
    log.write_text(postgres(0.25, "LOG: selected new timeline ID: 2"))
    for name, lose, fold in (("kept", 0, "<details>"), ("lost", 1, "<details open>")):
        run_dir = Synthetic(**SHORT, lose=lose).write(tmp_path / name)
        collect_logs(run_dir, RECORD, [], {OLD: [log]})
        text = render(run_dir, judge_run(run_dir)).read_text()
        assert "selected new timeline ID: 2" in text
        assert fold in text


# Real lines, one of each server.

BOOT = "monotonic:edc27e82"
MORNING = RECORD.model_copy(
    update={
        "clock_id": BOOT,
        "wall_anchor": WallAnchor(monotonic_ns=585578381722, unix_ns=1795933488789949979),
        "fault": RECORD.fault and RECORD.fault.model_copy(update={"t_ns": 100 * S}),
        "windows": Windows(fault=(100 * S, 800 * S)),
    }
)
"""A run of 29 November 2026 whose fault lasted from 06:16:43 to 06:28:23 UTC."""
ZONED = [
    (
        "2026-11-29 06:20:46.569 UTC [10949] postgres@postgres FATAL:  terminating connection due to administrator "
        "command",
        "06:20:46.569",
        "[10949] postgres@postgres FATAL:  terminating connection due to administrator command",
    ),
    (
        '{"level":"warn","ts":"2026-11-29T06:17:39.240Z","caller":"auth/store.go:1380",'
        '"msg":"simple token is not cryptographically signed"}',
        "06:17:39.240",
        "warn auth/store.go:1380: simple token is not cryptographically signed",
    ),
    (
        "<1>2026-11-29T06:17:51.968513+00:00 Server predict/api-1 is DOWN, reason: Layer4 connection problem, "
        'info: "Connection refused", check duration: 0ms. 0 active and 0 backup servers left.',
        "06:17:51.968513",
        'Server predict/api-1 is DOWN, reason: Layer4 connection problem, info: "Connection refused", '
        "check duration: 0ms. 0 active and 0 backup servers left.",
    ),
    (
        '{"time":"2026-11-29T06:17:52.430+00:00","level":"info","logger":"services.api.cache","replica":"api-0",'
        '"message":"the cache is open"}',
        "06:17:52.430",
        "info services.api.cache: the cache is open",
    ),
    (
        "2026-11-29T06:25:19.293910686Z main INFO Configuration org.apache.logging.log4j.core.config.builder.impl."
        "BuiltConfiguration@4bff1903 started.",
        "06:25:19.293910686",
        "main INFO Configuration org.apache.logging.log4j.core.config.builder.impl."
        "BuiltConfiguration@4bff1903 started.",
    ),
    (
        "2026-11-29T06:26:19.117+00:00 INFO:mage_ai.server.scheduler_manager:Scheduler status: running.",
        "06:26:19.117",
        "INFO:mage_ai.server.scheduler_manager:Scheduler status: running.",
    ),
    (
        '2026-11-29T06:17:52.430Z {"level":"warn","ts":"2026-11-29T06:17:52.429Z","msg":"as a kubelet hands it out"}',
        "06:17:52.430",
        "warn: as a kubelet hands it out",
    ),
]
LOCAL = [
    (
        "2026-11-29 06:26:01,448 INFO: Setting leader to shard-0-2, quorum to 1 of 2 (shard-0-0, shard-0-1)",
        "06:26:01.448",
        "INFO: Setting leader to shard-0-2, quorum to 1 of 2 (shard-0-0, shard-0-1)",
    ),
    ("3670:M 29 Nov 2026 06:17:39.245 * Ready to accept connections", "06:17:39.245", "* Ready to accept connections"),
    (
        "11-29 06:25:24.545 127.0.0.1:24060       10423    FJ-126-3  INFO water.default: Cloud of size 3 formed",
        "06:25:24.545",
        "127.0.0.1:24060       10423    FJ-126-3  INFO water.default: Cloud of size 3 formed",
    ),
    (
        "06:25:18.415 [main] INFO  org.eclipse.jetty.util.log - Logging initialized @2233ms",
        "06:25:18.415",
        "[main] INFO  org.eclipse.jetty.util.log - Logging initialized @2233ms",
    ),
]


def kept(directory: Path, text: str, run: RunRecord = MORNING) -> list[tuple[int, str]]:
    log = directory / "one.log"
    log.write_text(text + "\n")
    collect_logs(directory, run, [], {OLD: [log]})
    return [(line.t_ns, line.text) for line in read_logs(directory)]


def instant(clock: str) -> int:
    """ns of the run's clock at a time of that morning, UTC."""
    whole, fraction = clock.split(".")
    at = datetime.datetime.fromisoformat(f"2026-11-29T{whole}+00:00")
    unix_ns = int(at.timestamp()) * S + int(fraction.ljust(9, "0"))
    return unix_ns - MORNING.wall_anchor.unix_ns + MORNING.wall_anchor.monotonic_ns


@pytest.mark.parametrize(("line", "clock", "said"), ZONED)
def test_a_stamp_with_a_zone_is_what_it_says(
    tmp_path: Path, move: Callable[[str], None], line: str, clock: str, said: str
) -> None:
    move("Asia/Tokyo")
    assert kept(tmp_path, line) == [(instant(clock), said)]


@pytest.mark.parametrize(("line", "clock", "said"), LOCAL)
def test_a_stamp_without_a_zone_is_the_machines_own_time(
    tmp_path: Path, move: Callable[[str], None], line: str, clock: str, said: str
) -> None:
    move("UTC")
    assert kept(tmp_path, line) == [(instant(clock), said)]
    move("Asia/Tokyo")
    there = line.replace(" 06:", " 15:").replace("06:25:18", "15:25:18")
    assert kept(tmp_path, there) == [(instant(clock), said)]


def test_an_offset_is_not_taken_for_utc(tmp_path: Path) -> None:
    line = "<5>2026-11-29T07:17:52.585896+01:00 Server api/api-1 is UP"
    assert kept(tmp_path, line) == [(instant("06:17:52.585896"), "Server api/api-1 is UP")]


@pytest.mark.parametrize(
    ("line", "t_ns", "said"),
    [
        (
            '{"t_ns":343994468967,"clock_id":"monotonic:edc27e82","source":"warden","member":"shard-0-2",'
            '"kind":"fenced","data":{"processes":1}}',
            343994468967,
            "warden fenced processes=1",
        ),
        (
            '{"t_ns":462227596407,"clock_id":"monotonic:edc27e82","source":"h2o-agent","member":"h2o-1",'
            '"kind":"exited","data":{"pid":4157,"code":-9}}',
            462227596407,
            "h2o-agent exited pid=4157 code=-9",
        ),
        (
            '{"t_ns":462253660047,"clock_id":"monotonic:edc27e82","source":"h2o-keeper","member":"h2o-0",'
            '"kind":"raised","data":{"what":"bw-2","why":"process_exited","node":"h2o-1","failures":0}}',
            462253660047,
            "h2o-keeper raised what=bw-2 why=process_exited node=h2o-1 failures=0",
        ),
        (
            '{"t_ns":646717110820,"clock_id":"monotonic:edc27e82","source":"model-registry","member":"registry-0",'
            '"kind":"not_repaired","data":{"error":"shard 0 did not serve the request: read-write session"}}',
            646717110820,
            "model-registry not_repaired error=shard 0 did not serve the request: read-write session",
        ),
    ],
)
def test_an_event_line_has_the_runs_own_clock(tmp_path: Path, line: str, t_ns: int, said: str) -> None:
    assert kept(tmp_path, line) == [(t_ns, said)]
    assert kept(tmp_path, line.replace(BOOT, "monotonic:ffffffff")) == []
    assert kept(tmp_path, line[:-9]) == []


@pytest.mark.parametrize(
    "line",
    [
        "[WARNING]  (4068) : Server predict/api-1 is DOWN",
        "2026-13-29 06:17:52.430 UTC of no month",
        "2026-11-31 06:17:52.430 UTC of no day",
        "2026-11-29 26:17:52.430 UTC of no hour",
        "1:M 29 Nov 2026 06:17:52 of no millisecond",
        "1:M 29 Now 2026 06:17:52.430 of no month",
        "02-29 06:17:52.430 of another year",
        "2025-11-29 06:17:52.430 UTC of another year",
    ],
)
def test_a_line_that_does_not_tell_when_is_left_out(tmp_path: Path, line: str) -> None:
    assert kept(tmp_path, line) == []


@pytest.mark.parametrize("line", ["01-01 00:00:05.000 INFO in the new year", "00:00:05.000 INFO in the new year"])
def test_a_run_across_new_year_has_its_lines(tmp_path: Path, move: Callable[[str], None], line: str) -> None:
    move("UTC")
    eve = datetime.datetime(2026, 12, 31, 23, 59, 50, tzinfo=datetime.UTC)
    anchor = WallAnchor(monotonic_ns=100 * S, unix_ns=int(eve.timestamp()) * S)
    found = kept(tmp_path, line, MORNING.model_copy(update={"wall_anchor": anchor}))
    assert found == [(115 * S, "INFO in the new year")]


# Which seconds, and what of too many lines.


def test_lines_are_kept_until_the_fault_is_over_and_what_it_broke_was_waited_for(tmp_path: Path) -> None:
    log = tmp_path / "postgres-Sun.log"
    log.write_text("".join(postgres(second, f"at {second}") for second in (-2, -0.5, 100, 239, 244, 246, 262)))
    long = RECORD.model_copy(update={"windows": Windows(fault=(KILL, KILL + 240 * S))})

    def texts(*events: Event, run: RunRecord = long) -> list[str]:
        collect_logs(tmp_path, run, events, {OLD: [log]})
        return [line.text.removeprefix("[123] at ") for line in read_logs(tmp_path)]

    assert texts() == ["-0.5", "100", "239", "244"]
    assert texts(event(258, "recovery", source="run")) == ["-0.5", "100", "239", "244", "246", "262"]
    assert texts(run=RECORD.model_copy(update={"windows": Windows()})) == ["-0.5", "100", "239", "244", "246", "262"]


def test_of_too_many_lines_those_nearest_to_the_faults_events_stay_also_of_a_quiet_log(tmp_path: Path) -> None:
    busy, quiet = tmp_path / "api.log", tmp_path / "patroni.log"
    busy.write_text("".join(postgres(tick / 50, f"request {tick}") for tick in range(1200)))
    quiet.write_text(postgres(9.99, "breaker opened") + postgres(19.99, "breaker closed"))
    events = [event(0, "killed", OLD), event(10, "killed_another", OLD), event(15, "killed_another", NEW)]

    assert collect_logs(tmp_path, RECORD, events, {OLD: [busy, quiet]}) == MOST_PER_MEMBER

    texts = [line.text.removeprefix("[123] ") for line in read_logs(tmp_path)]
    assert {"breaker opened", "breaker closed", "request 0", "request 500", "request 1000"} <= set(texts)
    assert "request 250" not in texts
    assert "request 750" not in texts, "what struck another member is no moment of this one"
    assert [line.t_ns for line in read_logs(tmp_path)] == sorted(line.t_ns for line in read_logs(tmp_path))


# Whose.

WHOLE = RECORD.model_copy(
    update={
        "members": (
            *("etcd-0", "etcd-1", "shard-0-0", "shard-1-0", "redis-0", "h2o-0", "h2o-1", "registry-0", "mage-0"),
            *("api-0", "api-1", "edge-0"),
        ),
        "shards": (ShardRecord(shard=0, members=("shard-0-0",)), ShardRecord(shard=1, members=("shard-1-0",))),
    }
)
SHARDS, REPLICAS, NODES = ["shard-0-0", "shard-1-0"], ["api-0", "api-1"], ["h2o-0", "h2o-1"]


def struck(component: str, member: str) -> RunRecord:
    assert WHOLE.fault is not None
    fault = WHOLE.fault.model_copy(update={"component": component, "member": member, "shard": None})
    return WHOLE.model_copy(update={"fault": fault})


@pytest.mark.parametrize(
    ("component", "member", "whose"),
    [
        ("postgres/shard-1", "shard-1-0", SHARDS),
        ("etcd", "etcd-1", ["etcd-0", "etcd-1", *SHARDS]),
        ("redis", "redis-0", ["redis-0", *REPLICAS]),
        ("h2o", "h2o-0", NODES),
        ("api", "api-1", [*REPLICAS, "edge-0"]),
        ("api", "every replica", [*REPLICAS, "edge-0"]),
        ("every", "every member", list(WHOLE.members)),
    ],
)
def test_a_fault_is_told_of_by_its_component_and_who_works_with_it(
    component: str, member: str, whose: list[str]
) -> None:
    assert affected(struck(component, member), []) == whose


def test_whom_an_event_of_the_fault_names_is_affected_as_well() -> None:
    events = [
        event(5, "killed_beside", "mage-0"),
        event(6, "proven", "every replica"),
        event(7, "noted", "etcd-0", "x"),
    ]
    assert affected(struck("api", "every replica"), events) == ["mage-0", *REPLICAS, "edge-0"]


def test_without_a_fault_nobody_is_affected() -> None:
    assert affected(WHOLE.model_copy(update={"fault": None}), []) == []


# In the report.


def test_a_report_has_lines_of_each_member_of_every_struck_shard(tmp_path: Path) -> None:
    run_dir = Synthetic(**SHORT).write(tmp_path / "run")
    assert RECORD.fault is not None
    other = RECORD.fault.model_copy(update={"shard": 0, "component": "postgres/shard-0", "member": "shard-0-1"})
    for also, shards in (((), {1}), ((other,), {0, 1})):
        run = RECORD.model_copy(update={"also": also, "windows": RunRecord.read(run_dir).windows})
        run.write(run_dir)
        logs = {}
        for name in (member for entry in run.shards for member in entry.members):
            logs[name] = [tmp_path / f"{name}.log"]
            logs[name][0].write_text("".join(postgres(tick / 100, f"{name} says {tick}") for tick in range(300)))
        collect_logs(run_dir, run, [], logs)
        text = render(run_dir, judge_run(run_dir)).read_text()
        shown = {name for name in logs if f"{name} says 0<" in text}
        assert shown == {member for entry in run.shards if entry.shard in shards for member in entry.members}
        assert text.count(" says ") <= 120
