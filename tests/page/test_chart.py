"""Curves: what is left of many points, the axes, colours that are read on white and on black."""

from __future__ import annotations

import math

import pytest
from made_up import HOSTILE, Reader

from kaizen.page.chart import MOST_POINTS, Axes, Curve, chart, shade, short, thin
from kaizen.page.html import tag, text


def test_few_points_stay_as_they_are() -> None:
    points = [(float(x), x * x / 7) for x in range(MOST_POINTS)]
    assert thin(points) == (points, [])


def test_many_points_become_means_between_their_extremes() -> None:
    points = [(float(x), 100.0 if x == 5000 else float(x % 2)) for x in range(100_001)]
    curve, spread = thin(points)
    assert len(curve) <= MOST_POINTS + 1 and curve[-1] == points[-1]
    assert all(abs(y - 0.5) < 0.2 for _, y in curve[:-1])
    assert max(y for _, y in spread) == 100.0 and min(y for _, y in spread) == 0.0


@pytest.mark.parametrize(
    "points",
    [
        [(1.0, 0.0)],
        [(0.0, -3.5), (1.0, -3.5)],
        [(0.0, 1e-12), (9.0, 1e12)],
        [(5.0, 1e308), (5.0, -1e305)],
        [(0.0, 5e-324)],
    ],
)
def test_whatever_the_values_the_picture_has_finite_places(points: list[tuple[float, float]]) -> None:
    page = Reader(chart("a", "b", [Curve("", points)], Axes("step", "value")))
    places = [float(found[key]) for _, found in page.tags for key in ("x", "y", "x1", "y1", "cx", "cy") if key in found]
    assert places and all(math.isfinite(place) and -50 <= place <= 500 for place in places)
    assert "nan" not in str(page.tags) and "inf" not in str(page.tags)


def test_the_last_value_and_the_borders_of_tasks_are_told() -> None:
    curves = [Curve("one", [(1.0, 0.25), (4.0, 0.75)], thick=True), Curve("two", [(2.0, 0.5)])]
    page = Reader(chart("a", "b", curves, Axes("step", "accuracy", (0.0, 1.0), [0.0, 2.0, 4.0])))
    assert page.texts.count("0.750") == 2 and "0.500" in page.texts  # at the curve's end and in the legend
    assert "task 0" in page.texts and "task 1" in page.texts
    label = page.all("svg")[0]["aria-label"]
    assert label == "a; accuracy over step: one last 0.750, two last 0.500"


def luminance(colour: str) -> float:
    levels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in levels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_shades_differ_and_are_read_on_white_and_on_black() -> None:
    shades = [shade(part / 39) for part in range(40)]
    assert len(set(shades)) == 40
    for colour in shades:
        assert 1.05 / (luminance(colour) + 0.05) >= 3 and (luminance(colour) + 0.05) / 0.06 >= 3, colour


def test_numbers_keep_the_digits_that_count() -> None:
    assert [short(value) for value in (0.0, 0.12345, 12.345, 123.45, 12345.0, 1e-5)] == [
        *("0.000", "0.123", "12.3", "123.5", "1.23e+04", "1.00e-05")
    ]


def test_everything_is_text_unless_it_was_made_as_markup() -> None:
    assert tag("p", HOSTILE, title='"><b>') == (
        '<p title="&quot;&gt;&lt;b&gt;">&lt;script&gt;alert(1)&lt;/script&gt;</p>'
    )
    assert text(tag("b", "1")) == "<b>1</b>" and text("a\x00\ud800\u202eb\n") == "a\ufffd\ufffd\ufffdb\n"
