"""Log lines around the fault: the right seconds, both stamps, no secret."""

from __future__ import annotations

import datetime
import logging
import sys
import time
from pathlib import Path

import pytest

from experiments.logs import collect_logs, read_logs
from experiments.report import render
from experiments.verdict import judge_run
from services.api.logs import JsonFormatter
from tests.unit.experiments.judging import SHORT
from tests.unit.experiments.synthetic_run import KILL, MS, OLD, S, Synthetic

RECORD = Synthetic().record()
KILLED = datetime.datetime.fromtimestamp(RECORD.wall_anchor.unix_ns_at(KILL) / S, tz=datetime.UTC)


def postgres(after_s: float, words: str) -> str:
    at = KILLED + datetime.timedelta(seconds=after_s)
    return f"{at:%Y-%m-%d %H:%M:%S}.{at.microsecond // 1000:03d} UTC [123] {words}\n"


def patroni(after_s: float, words: str) -> str:
    at = (KILLED + datetime.timedelta(seconds=after_s)).astimezone()
    return f"{at:%Y-%m-%d %H:%M:%S},{at.microsecond // 1000:03d} INFO: {words}\n"


def test_only_lines_around_the_fault_are_kept_in_order_and_without_secrets(tmp_path: Path) -> None:
    log, other = tmp_path / "postgres-Sun.log", tmp_path / "patroni.log"
    log.write_text(
        postgres(-60, "long before") + postgres(0.25, "LOG: selected new timeline") + postgres(3600, "long after")
    )
    other.write_text("no stamp\n" + patroni(0.1, "promoted, password=hunter2 token: abc"))

    assert collect_logs(tmp_path, RECORD, {OLD: [log, other]}) == 2

    first, second = read_logs(tmp_path)
    assert (first.member, first.file, first.text) == (OLD, "patroni.log", "INFO: promoted, password=*** token: ***")
    assert second.text == "[123] LOG: selected new timeline"
    assert abs(second.t_ns - KILL - 250 * MS) <= MS


def test_a_replicas_lines_are_read_as_people_read_them_whatever_the_machines_zone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert collect_logs(tmp_path, RECORD, {OLD: [log]}) == 3
    finally:
        monkeypatch.undo()
        time.tzset()
    texts = [line.text for line in read_logs(tmp_path)]
    assert "warning services.api.access: request route=/v1/predict status=503 token=***" in texts
    assert "error services.api.layer: it failed ValueError: invalid literal for int() with base 10: 'of this'" in texts
    assert '", half an object' in texts


def test_without_a_fault_there_is_nothing_to_keep(tmp_path: Path) -> None:
    record = Synthetic(fault=False).record()
    assert collect_logs(tmp_path, record, {OLD: []}) == 0
    assert read_logs(tmp_path) == ()


def test_a_report_has_them_folded_when_the_run_is_true(tmp_path: Path) -> None:
    log = tmp_path / "postgres-Sun.log"
    log.write_text(postgres(0.25, "LOG: selected new timeline ID: 2"))
    for name, lose, fold in (("kept", 0, "<details>"), ("lost", 1, "<details open>")):
        run_dir = Synthetic(**SHORT, lose=lose).write(tmp_path / name)
        collect_logs(run_dir, RECORD, {OLD: [log]})
        text = render(run_dir, judge_run(run_dir)).read_text()
        assert "selected new timeline ID: 2" in text
        assert fold in text
