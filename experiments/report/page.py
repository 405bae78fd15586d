"""report.html: a run's verdict, figures and story in one file that opens offline and asks nothing of any network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import jinja2

from experiments.checkers.fault import NS_PER_MS
from experiments.checkers.finding import Exhibit, Verdict
from experiments.checkers.validity import VALIDITY
from experiments.errors import RunFileError
from experiments.evidence import Evidence, load_evidence
from experiments.history import History
from experiments.logs import LogLine, closest, moments, read_logs
from experiments.record import RunRecord
from experiments.report import charts, words
from experiments.report.phases import phase_latencies
from experiments.report.series import errors, sent
from experiments.report.story import marks, story
from experiments.verdict import Judged, Judgement
from loadtests.profiles import PROFILES
from loadtests.record import Kind

REPORT_FILE: Final = "report.html"

_HERE: Final = Path(__file__).parent
_PAGES: Final = jinja2.Environment(
    loader=jinja2.FileSystemLoader(_HERE),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)

MOST_LOG_LINES: Final = 120
"""Of all members together, the same share for each; the rest is in the run's logs."""

MOST_ERRORS: Final = 12
"""Groups of errors below the strips; the history holds every one."""

SHARE_PX: Final = 150.0
"""Length of a bar that used all that was allowed."""


@dataclass(frozen=True, slots=True)
class Row:
    """A promise as the page shows it."""

    title: str
    why: str | None
    verdict: str
    measured: str
    target: str
    out_of: str
    reason: str
    bar: str
    """SVG: made of numbers only, so that the page takes it as it is."""
    exhibits: tuple[Exhibit, ...]


def render(run_dir: Path, judgement: Judgement) -> Path:
    """Write report.html of a judged run and return its path."""
    page = page_of(run_dir, judgement)
    fresh = run_dir / f"{REPORT_FILE}.new"
    fresh.write_text(page, encoding="utf-8")
    return fresh.replace(run_dir / REPORT_FILE)


def page_of(run_dir: Path, judgement: Judgement) -> str:
    """The page's text; a run that was cut off gets the parts that can be drawn."""
    run = judgement.run
    evidence = load_evidence(run_dir)
    try:
        history = History.load(run_dir)
    except RunFileError:
        history = History.empty()
    frame = charts.Frame.of(run, history, judgement.recovery)
    figures = None
    if frame is not None and len(history):
        figures = {
            "rate": charts.rate_chart(history, run, frame),
            "latency": charts.latency_chart(history, run, frame, marks(run, evidence)),
            "bad": charts.bad_chart(history, run, frame),
        }
    recovery = judgement.recovery
    content: dict[str, Any] = {
        "css": (_HERE / "page.css").read_text(encoding="utf-8"),
        "scenario": run.scenario,
        "title": judgement.title,
        "variant": run.variant.replace("-", " "),
        "verdict": judgement.verdict.value,
        "where": words.where(run),
        "done": words.what_was_done(run),
        "outcome": words.what_came_of_it(judgement),
        "broken": _rows([e for e in judgement.judged if e.finding.verdict is Verdict.FALSE]),
        "unproven": _rows(_causes_first([e for e in judgement.judged if e.finding.verdict is Verdict.UNKNOWN])),
        "promises": _rows([e for e in judgement.worst_first() if e.promise.checker not in VALIDITY]),
        "proof": _rows([e for e in judgement.worst_first() if e.promise.checker in VALIDITY]),
        "figures": figures,
        "bin": f"{frame.bins.width_s:g} s" if frame is not None else "",
        "phases": _phases(history, run),
        "errors": _errors(history, run, frame) if figures is not None and frame is not None else [],
        "band": run.load is None,
        "outage": frame is not None and frame.outage is not None,
        "samples": _samples(history, run, frame) if frame is not None else "",
        "most": _most(history, frame) if frame is not None else "",
        "unsent": bool((~sent(history)).any()),
        "waterfall": charts.waterfall(recovery) if recovery is not None else None,
        "total": words.duration_ms(recovery.total_ns / NS_PER_MS) if recovery is not None else "",
        "story": [
            {"at": words.after_fault(line.t_ns, run), "words": line.words} for line in story(run, evidence, recovery)
        ],
        "logs": _logs(run_dir, run, evidence),
        "method": _method(judgement, history),
        "again": f"breakwater check {run_dir.resolve().parent.name}/{run_dir.name}",
    }
    return _PAGES.get_template("page.html.j2").render(content)


def _phases(history: History, run: RunRecord) -> list[dict[str, str]]:
    def ms(value: float | None) -> str:
        return words.NOTHING if value is None else f"{value:,.1f}"

    return [
        {
            "kind": row.kind.value,
            "phase": row.phase,
            "n": f"{row.n:,}",
            "p50": ms(row.p50_ms),
            "p95": ms(row.p95_ms),
            "p99": ms(row.p99_ms),
            "ratio": words.NOTHING if row.ratio is None else words.number(row.ratio, "x"),
        }
        for row in phase_latencies(history, run)
    ]


def _errors(history: History, run: RunRecord, frame: charts.Frame) -> list[dict[str, str]]:
    return [
        {
            "kind": group.kind,
            "shard": group.shard,
            "error": group.error,
            "count": f"{group.count:,}",
            "first": words.after_fault(group.first_ns, run),
            "last": words.after_fault(group.last_ns, run),
        }
        for group in errors(history, frame.bins)[:MOST_ERRORS]
    ]


def _logs(run_dir: Path, run: RunRecord, evidence: Evidence) -> list[dict[str, str]]:
    """What the struck shards' servers, or all whose logs tell of another fault, wrote nearest to its events."""
    if run.fault is None:
        return []
    healthy = [entry for entry in run.shards if run.struck_shards and entry.shard not in run.struck_shards]
    spared = {name for entry in healthy for name in entry.members}
    kept: dict[str, list[LogLine]] = {}
    for line in read_logs(run_dir):
        if line.member not in spared:
            kept.setdefault(line.member, []).append(line)
    shown = [
        line
        for member, lines in kept.items()
        for line in closest(lines, moments(run, evidence.events, member), max(1, MOST_LOG_LINES // len(kept)))
    ]
    return [
        {"at": words.after_fault(line.t_ns, run), "member": line.member, "text": line.text}
        for line in sorted(shown, key=lambda line: line.t_ns)
    ]


def _rows(judged: Sequence[Judged]) -> list[Row]:
    return [
        Row(
            title=entry.promise.title,
            why=entry.promise.why,
            verdict=entry.finding.verdict.value,
            measured=words.measured(entry.promise, entry.finding),
            target=words.target(entry.promise),
            out_of=entry.finding.out_of,
            reason=entry.finding.reason,
            bar=_bar(entry),
            exhibits=entry.finding.evidence,
        )
        for entry in judged
    ]


def _causes_first(judged: list[Judged]) -> list[Judged]:
    """What made the run no proof stands before the promises that it left open."""
    return sorted(judged, key=lambda entry: entry.promise.checker not in VALIDITY)


def _bar(entry: Judged) -> str:
    """Share of the target as a bar: the target is where the pale bar ends, or a stroke in a bar that goes beyond it."""
    share = words.share_of_target(entry.promise, entry.finding)
    if share is None:
        return f'<span class="dim">{words.NOTHING}</span>'
    broken = entry.finding.verdict is Verdict.FALSE
    over = share > 1 and entry.promise.compare != ">="
    length = max(2.0, min(share, 1.0) * SHARE_PX)
    said = "more than the target" if over else f"{100 * min(share, 1.0):.0f} % of the target"
    at = f"{SHARE_PX / share:.1f}" if over and entry.promise.target else None
    limit = f'<line x1="{at}" x2="{at}" y1="-1" y2="9" class="limit"/>' if at is not None else ""
    return (
        f'<svg viewBox="0 0 {SHARE_PX:g} 8" role="img" aria-label="{said}">'
        f'<rect y="2" width="{SHARE_PX:g}" height="4" rx="2" class="room"/>'
        f'<rect y="1.5" width="{length:.1f}" height="5" rx="2" class="{"over" if broken else "used"}"/>{limit}</svg>'
    )


def _samples(history: History, run: RunRecord, frame: charts.Frame) -> str:
    """How many operations stand behind a point, on average where rates changed."""
    point = run.scheduled(1, frame.bins.window) / frame.bins.count
    writes = (run.rates.write + run.rates.write_api) * point
    predictions = run.rates.predict * point
    answered = int(history.of(Kind.PREDICT).sum())
    of_shard = f"{writes:.0f} writes of a shard, " if writes else ""
    return f"A point is {frame.bins.width_s:g} s: about {of_shard}{predictions:.0f} predictions ({answered:,} in all)."


def _most(history: History, frame: charts.Frame) -> str:
    bad = frame.bins.counts(history.sched_ns[~history.available & sent(history)])
    return f", at most {max(bad):,} in {frame.bins.width_s:g} s" if max(bad, default=0) else ""


def _method(judgement: Judgement, history: History) -> list[tuple[str, str]]:
    run, rates = judgement.run, judgement.run.rates
    of_shards = (
        f"; for each shard {rates.write:g} direct writes/s, {rates.write_api:g} writes/s through the API, "
        f"{rates.read:g} reads/s{f', {rates.read_api:g} reads/s through the API' if rates.read_api else ''}"
    )
    only_predictions = not (rates.write or rates.write_api or rates.read)
    listed = [
        (
            "load",
            f"open model: {rates.predict:g} predictions/s by Poisson{'' if only_predictions else of_shards}; "
            f"{len(history):,} operations in all",
        ),
        *(() if run.load is None else (("profile", f"{run.profile}: {PROFILES[run.profile].title}"),)),
        ("latency", "counted from the scheduled time, so that a client that had to wait hides nothing"),
    ]
    if judgement.of("lost_writes") is not None:
        listed.append(("lost writes", "every acknowledged write against rows read from the primaries after the load"))
    if judgement.recovery is not None:
        gap = judgement.recovery.resolution_ns / NS_PER_MS
        listed.append(("resolution", f"{gap:.0f} ms between the attempts around the recovery"))
    if run.fault is not None:
        listed.append(("fault", f"{run.fault.method}, {run.fault.scope} of {run.fault.member}: {run.fault.evidence}"))
    if run.versions:
        listed.append(("versions", ", ".join(f"{name} {version}" for name, version in run.versions.items())))
    listed += [
        ("clock", f"{run.clock_id}, one machine's monotonic clock for every duration"),
        ("run", run.run_id),
        *(("note", note) for note in run.notes),
    ]
    return listed
