"""Event lines: in their file, and in the server's log where it is wished."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.contracts.events import Event, EventLog, read_events


@pytest.mark.parametrize("aloud", [False, True])
def test_an_event_is_in_the_servers_log_where_it_is_said_aloud(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], aloud: bool
) -> None:
    event = Event.now("h2o-agent", "exited", "h2o-1", code=-9)
    log = EventLog(tmp_path / "events.jsonl", aloud=aloud)
    log.append(event)
    log.close()
    assert list(read_events(tmp_path / "events.jsonl")) == [event]
    assert capfd.readouterr().err == (event.to_line().decode() if aloud else "")
