"""Curves as small SVG pictures that follow the colours of the page: no library, no script."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean

from kaizen.page.html import Content, Html, figure, tag

Point = tuple[float, float]
WIDTH, HEIGHT = 360, 210
LEFT, RIGHT, TOP, BOTTOM = 46, 44, 18, 34  # margins, for the numbers
MOST_POINTS = 160  # of a curve; more are not seen in so small a picture
DASHES = ("", "6 3", "2 3", "9 3 2 3", "12 4", "4 2 1 2", "1 4", "8 2 4 2")  # tell curves apart without colour
MANY = len(DASHES)
NARROW = 12  # the numbers of narrower tasks would touch


@dataclass(frozen=True)
class Curve:
    """One curve.

    Attributes:
        name: for the legend; empty where there is none, for a single curve.
        points: finite (x, y), x ascending.
        thick: it is the one to look at.
        marked: a dot at each point.
        band: the outline of what the values spread over, around the curve; of at most 160 points.
        look: number of its colour and dashes, where several charts have it in common; by default its place.
    """

    name: str
    points: Sequence[Point]
    thick: bool = False
    marked: bool = False
    band: Sequence[Point] = ()
    look: int | None = None


@dataclass(frozen=True)
class Axes:
    """What the curves of a chart stand on.

    Attributes:
        x, y: what they show, with the unit.
        bounds: of y; None: as the curves need.
        borders: the x where each task begins, and the end of the last.
        ticks: names of places on the x axis; None: numbers.
    """

    x: str
    y: str
    bounds: tuple[float, float] | None = None
    borders: Sequence[float] = ()
    ticks: Sequence[tuple[float, str]] | None = None


def chart(title: str, meaning: Content, curves: Sequence[Curve], axes: Axes, end: str = "last") -> Html:
    """A figure with a title, axes, curves, the last value of the one to look at, and a legend with that of each.

    Args:
        title: what it shows.
        meaning: what that means, below the title.
        curves: with at least one point each.
        axes: below them.
        end: what the legend calls the last value.
    """
    thinned = [(points, spread or curve.band) for curve in curves for points, spread in [thin(curve.points)]]
    xs = [x for points, _ in thinned for x, _ in points] + list(axes.borders)
    ys = [y for points, _ in thinned for _, y in points] + [y for _, spread in thinned for _, y in spread]
    x_range = (min(xs), max(xs)) if min(xs) < max(xs) else (min(xs) - 0.5, max(xs) + 0.5)
    scale = _Scale(x_range, axes.bounds or _rounded(min(ys), max(ys)))
    lines = [
        part
        for curve, (points, spread), (colour, dash) in zip(curves, thinned, _looks(curves), strict=True)
        for part in _curve(scale, curve, points, spread, colour, dash)
    ]
    values = [f"{curve.name or title} {end} {short(curve.points[-1][1])}" for curve in curves[:MANY]]
    svg = tag(
        "svg",
        *_frame(scale, axes),
        *lines,
        *_last_value(scale, curves),
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
        aria_label=f"{title}; {axes.y} over {axes.x}: {', '.join(values)}",
    )
    caption = tag("span", title, tag("small", meaning) if meaning else None)
    return figure(svg, caption, *([_legend(curves, end)] if len(curves) > 1 else []))


def thin(points: Sequence[Point]) -> tuple[list[Point], list[Point]]:
    """Means over neighbours where there are too many points, and the outline of what they lie between.

    Returns:
        The points of the curve, the last one as it is; the outline, empty where nothing was left out.
    """
    if len(points) <= MOST_POINTS:
        return list(points), []
    size = -(-len(points) // MOST_POINTS)
    groups = [points[i : i + size] for i in range(0, len(points), size)]
    middle = [(fmean(x for x, _ in group), fmean(y for _, y in group)) for group in groups]
    upper = [(x, max(y for _, y in group)) for (x, _), group in zip(middle, groups, strict=True)]
    lower = [(x, min(y for _, y in group)) for (x, _), group in zip(middle, groups, strict=True)]
    return [*middle, points[-1]], [*upper, *reversed(lower)]


def _looks(curves: Sequence[Curve]) -> list[tuple[str, str | None]]:
    """Colour and dashes of each curve: those of its own number, or of its place."""
    numbers = [place if curve.look is None else curve.look for place, curve in enumerate(curves)]
    return [(colour_of(number, max(numbers) + 1), dash_of(number)) for number in numbers]


def colour_of(number: int, count: int) -> str:
    """The colour of one of several curves; many have neighbouring shades in their order."""
    if count <= MANY:
        return f"var(--s{number})"
    return shade(number / (count - 1))


def shade(part: float) -> str:
    """From violet (0) over blue and green to ochre (1), all of a brightness that is read on white and on black."""
    lightness, chroma, hue = 0.62, 0.125, math.radians(300 - 225 * part)  # of OKLab (Ottosson, 2020)
    a, b = chroma * math.cos(hue), chroma * math.sin(hue)
    cones = [
        (lightness + x * a + y * b) ** 3
        for x, y in ((0.3963377774, 0.2158037573), (-0.1055613458, -0.0638541728), (-0.0894841775, -1.2914855480))
    ]
    linear = (
        4.0767416621 * cones[0] - 3.3077115913 * cones[1] + 0.2309699292 * cones[2],
        -1.2684380046 * cones[0] + 2.6097574011 * cones[1] - 0.3413193965 * cones[2],
        -0.0041960863 * cones[0] - 0.7034186147 * cones[1] + 1.7076147010 * cones[2],
    )
    levels = (12.92 * c if c <= 0.0031308 else 1.055 * c ** (1 / 2.4) - 0.055 for c in linear)
    return "#" + "".join(f"{round(255 * min(1, max(0, level))):02x}" for level in levels)


def dash_of(number: int) -> str | None:
    """The pattern of a curve."""
    return DASHES[number % MANY] or None


def short(value: float) -> str:
    """A number with four digits that count."""
    if value == 0 or 1e-3 <= abs(value) < 1e4:
        return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}" if abs(value) < 1000 else f"{value:.0f}"
    return f"{value:.2e}"


@dataclass(frozen=True)
class _Scale:
    xs: tuple[float, float]
    ys: tuple[float, float]

    def x(self, value: float) -> float:
        return round(LEFT + (value - self.xs[0]) / (self.xs[1] - self.xs[0]) * (WIDTH - LEFT - RIGHT), 1)

    def y(self, value: float) -> float:
        part = (value - self.ys[0]) / (self.ys[1] - self.ys[0])
        return round(HEIGHT - BOTTOM - part * (HEIGHT - TOP - BOTTOM), 1)

    def path(self, points: Sequence[Point]) -> str:
        return "M" + "L".join(f"{self.x(x):g} {self.y(y):g}" for x, y in points)


def _curve(
    scale: _Scale, curve: Curve, points: Sequence[Point], spread: Sequence[Point], colour: str, dash: str | None
) -> list[Html]:
    parts = []
    if spread:
        parts.append(tag("path", d=scale.path(spread) + "Z", class_="spread", style=f"fill:{colour}"))
    kind = "curve thick" if curve.thick else "curve"
    parts.append(tag("path", d=scale.path(points), class_=kind, style=f"stroke:{colour}", stroke_dasharray=dash))
    if curve.marked or len(points) == 1:
        radius = 3.4 if curve.thick else 2.4
        parts += [tag("circle", cx=scale.x(x), cy=scale.y(y), r=radius, style=f"fill:{colour}") for x, y in points]
    return parts


def _frame(scale: _Scale, axes: Axes) -> list[Html]:
    """Bands of the tasks, rules, numbers and names."""
    low, high = HEIGHT - BOTTOM, TOP
    parts = []
    for task, (start, stop) in enumerate(pairwise(axes.borders)):
        left, width = scale.x(start), round(scale.x(stop) - scale.x(start), 1)
        if task % 2:
            parts.append(tag("rect", x=left, y=high, width=width, height=low - high, class_="band"))
        if task and width >= NARROW:
            parts.append(tag("line", x1=left, x2=left, y1=high, y2=low, class_="border"))
        if width >= NARROW:
            label = f"task {task}" if width >= 40 else str(task)
            parts.append(tag("text", label, x=round(left + width / 2, 1), y=high - 5, text_anchor="middle"))
    for value in _ticks(*scale.ys):
        y = scale.y(value)
        parts.append(tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y, class_="rule"))
        parts.append(tag("text", _tick_text(value, scale.ys), x=LEFT - 6, y=y + 4, text_anchor="end"))
    parts.append(tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=low, y2=low, class_="axis"))
    named = axes.ticks if axes.ticks is not None else [(x, _tick_text(x, scale.xs)) for x in _ticks(*scale.xs)]
    every = max(1, -(-len(named) * 22 // (WIDTH - LEFT - RIGHT)))  # a name takes some 22 units
    for x, name in named[::every]:
        parts.append(tag("text", name, x=scale.x(x), y=low + 14, text_anchor="middle"))
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(tag("text", axes.x, x=middle, y=HEIGHT - 4, text_anchor="middle"))
    if not axes.borders:
        parts.append(tag("text", axes.y, x=4, y=11))
    return parts


def _last_value(scale: _Scale, curves: Sequence[Curve]) -> list[Html]:
    """At the end of the only curve, or of the thick one."""
    chosen = [curve for curve in curves if curve.thick] or list(curves)
    if len(chosen) != 1:
        return []
    x, y = chosen[0].points[-1]
    return [tag("text", short(y), x=scale.x(x) + 5, y=scale.y(y) + 4, class_="last")]


def _legend(curves: Sequence[Curve], end: str) -> Html:
    items, many = [], len(curves) > MANY
    for curve, (colour, dash) in zip(curves, _looks(curves), strict=True):
        kind = "curve thick" if curve.thick else "curve"
        line = tag("path", d="M1 4H25", class_=kind, style=f"stroke:{colour}", stroke_dasharray=dash)
        swatch = tag("svg", line, viewBox="0 0 26 8", aria_hidden="true")
        value = tag("b", short(curve.points[-1][1]))
        items.append(tag("li", swatch, f"{curve.name} " if many else f"{curve.name} {end} ", value))
    return tag("ul", *items, class_="legend many" if many else "legend")


def _rounded(low: float, high: float) -> tuple[float, float]:
    """Bounds that are multiples of the step between ticks, and never equal."""
    if high - low < 1e-9 * max(abs(low), abs(high)) or low == high:
        margin = abs(low) * 0.1 or 0.1
        low, high = low - margin, high + margin
    step = _step(low, high)
    return math.floor(low / step) * step, math.ceil(high / step) * step


def _step(low: float, high: float, most: int = 5) -> float:
    """1, 2 or 5 times a power of ten, so that there are at most `most` steps."""
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))


def _ticks(low: float, high: float) -> list[float]:
    step = _step(low, high)
    first, last = math.ceil(low / step - 1e-6), math.floor(high / step + 1e-6)
    return [number * step for number in range(first, last + 1)]


def _tick_text(value: float, bounds: tuple[float, float]) -> str:
    if abs(value) < 1e-12 * (bounds[1] - bounds[0]):
        return "0"
    return f"{value:.4g}" if 1e-3 <= abs(value) < 1e4 else f"{value:.0e}" if abs(value) < 1 else f"{value / 1000:g}k"
