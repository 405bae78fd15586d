"""The chart is well-formed and to scale."""

from __future__ import annotations

from xml.etree import ElementTree

from benchmarks.chart import Bar, bars

RECT = "{http://www.w3.org/2000/svg}rect"


def test_bars_share_one_scale_and_names_are_escaped() -> None:
    drawn = bars("a < b", [Bar("ours & theirs", "ours", 200, "200/s"), Bar("peer", "peer", 100, "100/s")])
    root = ElementTree.fromstring(drawn)  # noqa: S314 - our own
    _, longer, shorter = (float(rect.attrib["width"]) for rect in root.iter(RECT))
    assert longer == 2 * shorter
    assert "ours & theirs" in [text.text for text in root.iter() if text.text]
