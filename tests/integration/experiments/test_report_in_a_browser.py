"""The report as people meet it: Chromium opens it without a network, in light, dark and print, by keyboard too."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from experiments.logs import AROUND_FILE, LogLine
from experiments.report import render
from experiments.verdict import judge_run
from tests.integration.experiments.browser import MISSING, Page, browsing, program
from tests.unit.experiments.judging import SHORT
from tests.unit.experiments.synthetic_run import KILL, MS, Synthetic

pytestmark = [pytest.mark.integration, pytest.mark.skipif(program() is None, reason=MISSING)]

RUNS: dict[str, dict[str, Any]] = {
    "true": {},
    "false": {"lose": 3, "outage_s": 3.5, "detect_s": 2.0, "promote_s": 3.2, "route_s": None},
    "unknown": {"proven": False, "outage_s": 0, "stalled_s": (1, 3), "journal": False},
}
AA_CONTRAST = 4.5
"""WCAG 2.2, 1.4.3: text against what lies behind it."""
CONTRAST = """(() => {
  const share = v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = rgb => { const [r, g, b] = rgb.match(/\\d+/g).slice(0, 3).map(v => share(v / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const back = light(getComputedStyle(document.body).backgroundColor);
  const texts = [...document.querySelectorAll('h1, h2, p, td, th, dt, dd, figcaption, summary, .dim, .word, .badge')];
  const ratio = e => { const [a, b] = [light(getComputedStyle(e).color), back].sort((x, y) => y - x);
    return (a + 0.05) / (b + 0.05); };
  return Math.min(...texts.map(ratio)); })()"""
FOCUSED = """(() => { const e = document.activeElement, s = getComputedStyle(e);
  return e === document.body ? null : {
    at: [...document.querySelectorAll('*')].indexOf(e), name: e.getAttribute('aria-label') || e.textContent.trim(),
    outline: s.outlineStyle, width: parseFloat(s.outlineWidth)}; })()"""
FOCUSABLE = "document.querySelectorAll('summary, details[open] [tabindex], :not(details) > [tabindex]').length"
FURTHEST_LABEL = "Math.max(...[...document.querySelectorAll('figure text')].map(e => e.getBoundingClientRect().right))"
DRAWN = "[...document.querySelectorAll('figure svg')].filter(e => e.getBoundingClientRect().width).length"


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One report of each verdict; the struck shard's log lines are in it."""
    made = {}
    for verdict, defects in RUNS.items():
        run_dir = Synthetic(**{**SHORT, **defects}).write(tmp_path_factory.mktemp(verdict) / "run")
        (run_dir / "logs").mkdir(exist_ok=True)
        lines = [LogLine(KILL + n * MS, f"shard-1-{n % 3}", "patroni.log", f"line {n}: no lock") for n in range(30)]
        (run_dir / AROUND_FILE).write_text("".join(json.dumps(asdict(line)) + "\n" for line in lines))
        made[verdict] = render(run_dir, judge_run(run_dir))
    return made


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    executable = program()
    assert executable is not None
    with browsing(executable) as opened:
        yield opened


@pytest.mark.parametrize("verdict", RUNS)
def test_it_opens_offline_and_without_a_complaint(page: Page, reports: dict[str, Path], verdict: str) -> None:
    page.look()
    page.open(reports[verdict])
    assert page.value("document.title").endswith(f": {verdict}")
    complaints = [
        event
        for event in page.events
        if event["method"] in {"Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded"}
    ]
    assert complaints == []
    asked = [e["params"]["request"]["url"] for e in page.events if e["method"] == "Network.requestWillBeSent"]
    assert asked == [reports[verdict].as_uri()]


@pytest.mark.parametrize("verdict", RUNS)
@pytest.mark.parametrize("seen", [("light", "screen"), ("dark", "screen"), ("dark", "print")], ids="-".join)
def test_it_can_be_read_in_light_dark_and_print(
    page: Page, reports: dict[str, Path], tmp_path: Path, verdict: str, seen: tuple[str, str]
) -> None:
    scheme, media = seen
    page.look(scheme=scheme, media=media)
    page.open(reports[verdict])
    background = page.value("getComputedStyle(document.body).backgroundColor")
    dark = seen == ("dark", "screen")
    assert background == ("rgb(18, 22, 27)" if dark else "rgb(255, 255, 255)")
    assert page.value(CONTRAST) >= AA_CONTRAST
    picture = tmp_path / f"{verdict}-{scheme}-{media}.png"
    picture.write_bytes(page.screenshot())
    assert picture.stat().st_size > 50_000, f"{picture} is nearly empty"


@pytest.mark.parametrize("seen", [("screen", 1280), ("screen", 390), ("print", 1000)], ids=str)
@pytest.mark.parametrize("verdict", RUNS)
def test_nothing_is_cut_off_or_scrolls_sideways(
    page: Page, reports: dict[str, Path], verdict: str, seen: tuple[str, int]
) -> None:
    media, width = seen
    page.look(media=media, width=width)
    page.open(reports[verdict])
    assert page.value("document.documentElement.scrollWidth") <= width
    assert page.value(FURTHEST_LABEL) <= width
    assert page.value(DRAWN) == page.value("document.querySelectorAll('figure').length")


@pytest.mark.parametrize("verdict", RUNS)
def test_the_keyboard_reaches_everything_in_order_and_shows_where_it_is(
    page: Page, reports: dict[str, Path], verdict: str
) -> None:
    page.look()
    page.open(reports[verdict])
    wanted = page.value(FOCUSABLE)
    assert wanted
    stops = []
    for _ in range(wanted):
        page.press_tab()
        stops.append(page.value(FOCUSED))
    assert None not in stops
    assert [stop["at"] for stop in stops] == sorted({stop["at"] for stop in stops})
    for stop in stops:
        assert stop["name"], "a stop without a name"
        assert stop["outline"] != "none", stop
        assert stop["width"] >= 2, stop


def test_it_prints(page: Page, reports: dict[str, Path]) -> None:
    page.look(media="print")
    page.open(reports["false"])
    assert page.call("Page.printToPDF", printBackground=True)["data"].startswith("JVBERi0")
