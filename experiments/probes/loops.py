"""What each replica has counted of its event loop and holds open, noted before the fault and after the recovery."""

from __future__ import annotations

from typing import Final

from prometheus_client.parser import text_string_to_metric_families

from infra.environment import Environment
from services.contracts.events import Event, EventLog

LOOP_SOURCE: Final = "loop"
_PINGS: Final = "breakwater_api_loop_lag_seconds_count"
_BLOCKED: Final = "breakwater_api_breaker_opened_total"
_STARTED: Final = "process_start_time_seconds"
_DESCRIPTORS: Final = "process_open_fds"


def note_loops(environment: Environment, log: EventLog, when: str) -> None:
    """Append `when` (`before` or `after`) with each replica's counts; one that does not answer leaves no event."""
    for member in environment.members("api"):
        page = environment.metrics(member.name)
        counts = None if page is None else loop_counts(page)
        if counts is not None:
            log.append(Event.now(LOOP_SOURCE, when, member.name, **counts))


def loop_counts(text: str) -> dict[str, float] | None:
    """`pings` answered, times `blocked`, open `descriptors`, when the process `started` (Unix s); None unless all."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == _PINGS:
                found["pings"] = sample.value
            elif sample.name == _DESCRIPTORS:
                found["descriptors"] = sample.value
            elif sample.name == _STARTED:
                found["started"] = sample.value
            elif sample.name == _BLOCKED and sample.labels.get("dependency") == "replica":
                found["blocked"] = sample.value
    return found if len(found) == 4 else None  # noqa: PLR2004 - the four above
