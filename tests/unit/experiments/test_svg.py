"""Drawing: scales, labels that keep apart, lines that break where nothing was measured."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.report.svg import LINE_PX, Canvas, Scale, nice_step, place_marks, spread, text_px

places = st.lists(st.floats(0, 150), max_size=8)


@given(places)
def test_spread_labels_keep_apart_in_order_and_within_bounds(wanted: list[float]) -> None:
    placed = spread(wanted, low=0, high=150)
    by_wish = [placed[at] for at in sorted(range(len(wanted)), key=lambda at: wanted[at])]
    assert all(b - a >= LINE_PX - 1e-6 for a, b in pairwise(by_wish))
    assert all(-1e-6 <= at <= 150 + 1e-6 for at in placed)


def test_labels_with_room_stay_where_they_are() -> None:
    apart = [0.0, 40.0, 80.0, 120.0]
    assert spread(apart, low=0, high=150) == apart


def test_two_labels_at_one_place_move_equally() -> None:
    assert spread([70, 70], low=0, high=150) == [70 - LINE_PX / 2, 70 + LINE_PX / 2]


marks = st.lists(st.tuples(st.floats(0, 1000), st.text("abc ", min_size=1, max_size=30)), max_size=8)


@given(marks)
def test_mark_labels_do_not_cover_each_other(listed: list[tuple[float, str]]) -> None:
    listed = sorted(listed)
    boxes: dict[int, list[tuple[float, float]]] = {}
    for (x, words), place in zip(listed, place_marks(listed, low=0, high=1000), strict=True):
        need = text_px(words)
        box = (x, x + need) if place.anchor == "start" else (x - need, x)
        assert all(box[1] <= other[0] or box[0] >= other[1] for other in boxes.setdefault(place.row, []))
        boxes[place.row].append(box)


def test_a_mark_at_the_edge_has_its_label_inside() -> None:
    (place,) = place_marks([(990.0, "streaming as replica")], low=0, high=1000)
    assert place.anchor == "end"


@given(st.floats(0.001, 1e6), st.integers(1, 12))
def test_nice_steps_divide_into_few_parts(span: float, most: int) -> None:
    step = nice_step(span, most)
    assert span / step <= most + 1e-6
    assert round(step / 10 ** math.floor(math.log10(step) + 1e-9), 6) in {1, 2, 5}


def test_scales() -> None:
    assert Scale(0, 10, 100, 200)(5) == 150
    assert Scale(1, 1000, 0, 300, log=True)(10) == pytest.approx(100)
    assert Scale(1, 1000, 0, 300, log=True)(0) == 0
    assert Scale(3, 3, 7, 9)(3) == 7


def test_a_line_breaks_where_nothing_was_measured() -> None:
    canvas = Canvas(10, 10)
    canvas.path([(0, 0), (1, 1), None, (3, 3)], "line")
    assert canvas.parts == ['<path d="M0.0 0.0L1.0 1.0M3.0 3.0h.1" class="line"/>']


def test_words_are_escaped() -> None:
    canvas = Canvas(10, 10)
    canvas.text(0, 0, "<script>", "axis")
    assert "<script>" not in canvas.render('"quoted" & more', "wide")
    assert 'aria-label="&quot;quoted&quot; &amp; more"' in canvas.render('"quoted" & more', "wide")
