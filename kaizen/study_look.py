"""How figures of a study look: colours, lines, legends and names. Colours stand for arms."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kaizen.plots import INK, MARKERS, escape_mathtext

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's, told apart with and without colour blindness; grey for black, no yellow, which is pale on white.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#7A7A7A")
HATCHES = ("", "///", "...", "xxx")  # where there are more arms than colours
DASHES = ("-", "--", ":", "-.")
LETTER = 0.085  # inches, of a letter of size 9


def colour(style: int) -> str:
    """The colour of the arm with this number."""
    return COLOURS[style % len(COLOURS)]


def bar_look(style: int) -> dict[str, Any]:
    """Of a bar; hatched where the colours begin anew."""
    return {"facecolor": colour(style), "hatch": _turn(HATCHES, style), "edgecolor": "white", "lw": 0}


def line_look(style: int) -> dict[str, Any]:
    """Of a line; dashed where the colours begin anew, and with a marker, as shape tells what colour does not."""
    marker = MARKERS[style % len(MARKERS)]
    return {"color": colour(style), "ls": _turn(DASHES, style), "marker": marker, "lw": 1.8, "ms": 5}


def _turn(kinds: Sequence[str], style: int) -> str:
    return kinds[style // len(COLOURS) % len(kinds)]


def unique(names: Iterable[str]) -> list[str]:
    """Each once, in their order."""
    return list(dict.fromkeys(names))


def shown(text: str, width: int = 30) -> str:
    """A name in lines of at most ``width`` characters."""
    return escape_mathtext("\n".join(textwrap.wrap(text, width)))


def new_figure(
    width: float, height: float, rows: int, columns: int, title: str, one_x: bool = False
) -> tuple[Figure, list[Axes]]:
    """Make a figure of ``width`` x ``height`` inches with panels on one scale.

    Args:
        width: of the figure.
        height: of the figure; a legend adds to it.
        rows: of panels.
        columns: of panels.
        title: of the figure.
        one_x: the lowest panels alone have numbers on their x axis.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    figure = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(h_pad=0.08), facecolor="white")
    FigureCanvasAgg(figure)
    figure.suptitle(escape_mathtext(title), color=INK, weight="bold", x=0.01, ha="left")
    return figure, list(figure.subplots(rows, columns, squeeze=False, sharex=one_x, sharey=True).flat)


def tidy(axes: Axes) -> None:
    """Horizontal lines to read values by, and no frame."""
    axes.grid(axis="y", color="#e6e6e6", lw=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK, labelsize=9)
    axes.spines[["top", "right"]].set_visible(False)


def legend(figure: Figure, handles: Mapping[str, Any]) -> None:
    """Name what the colours stand for, below the panels, and make room for it."""
    names = [*map(escape_mathtext, handles)]
    columns = max(1, int(figure.get_figwidth() / (max(map(len, names)) * LETTER + 0.6)))
    figure.set_figheight(figure.get_figheight() + 0.2 * math.ceil(len(names) / columns))
    figure.legend(list(handles.values()), names, loc="outside lower center", frameon=False, fontsize=9,
                  ncols=min(columns, len(names)))  # fmt: skip
