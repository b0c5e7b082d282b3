"""Draw one training step of Kaizen as imgs/method.png and imgs/method.svg.

Usage: python imgs/draw_method.py

The upper band is the frozen copy of the model after task t-1; the lower band, its mirror image, is the model
in training. Between them, where the two meet, the four terms stand in a row and read as the loss: their sum.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch, Rectangle
from matplotlib.path import Path as Outline

Point = tuple[float, float]

INK, QUIET = "#22262b", "#5f666d"
WARM, WARM_FILL, WARM_BAND = "#c2410c", "#fed7aa", "#fff8f0"  # trained
COLD, COLD_FILL, COLD_BAND = "#1d4ed8", "#dbeafe", "#f4f8ff"  # frozen
TASK_COLOURS = ("#f59e0b", "#ea580c", "#fbbf24", "#dc2626", "#fb923c", "#d97706", "#ef4444", "#fcd34d")
REPLAY_COLOURS = ("#0d9488", "#6366f1", "#84cc16", "#0ea5e9")

# One unit is one inch. Rows: networks, what they put out, and the loss between them.
FROZEN_Y, TARGET_Y, LOSS_Y, OUTPUT_Y, TRAINED_Y = 6.95, 6.05, 4.55, 3.05, 2.15
# Columns: the encoders, then one column per term of the loss.
ENCODER_X, SSL_X, FEATURE_X, SOFT_X, LABEL_X = 5.5, 7.6, 9.95, 12.3, 14.65


def main() -> None:
    """Write method.png and method.svg beside this file."""
    folder = Path(__file__).resolve().parent
    figure = draw()
    figure.savefig(folder / "method.png", dpi=130)
    with matplotlib.rc_context({"svg.hashsalt": "kaizen"}):  # with no date either, the file is the same each time
        figure.savefig(folder / "method.svg", metadata={"Date": None})


def draw() -> Figure:
    """Return the diagram."""
    figure = Figure(figsize=(16, 9.8), facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, 16), ylim=(-0.65, 9.15))
    axes.axis("off")
    axes.text(0.4, 8.75, "Kaizen: one training step on task $t$", size=22, weight="bold", color=INK, va="center")
    draw_batch(axes)
    draw_frozen_model(axes)
    draw_trained_model(axes)
    draw_loss(axes)
    draw_legend(axes)
    return figure


def draw_batch(axes: Axes) -> None:
    """Draw the task's images and the replayed ones, joined into a batch of which two views are made."""
    label(axes, 1.4, 6.3, "images of task $t$", weight="bold")
    thumbnails(axes, (0.45, 5.1), TASK_COLOURS)
    label(axes, 1.4, LOSS_Y, "joined into one batch", color=QUIET, size=11)
    thumbnails(axes, (0.45, 3.5), REPLAY_COLOURS)
    label(axes, 1.4, 3.1, "replay: a few images\nof each earlier task", weight="bold")
    arrow(axes, [(2.45, 5.35), (2.95, 4.85)], INK)
    arrow(axes, [(2.45, 3.75), (2.95, 4.25)], INK)
    box(axes, (3.75, LOSS_Y), (1.5, 1.1), "two views\n$x_1,\\ x_2$", INK, "white")
    arrow(axes, [(3.75, 5.1), (3.75, FROZEN_Y), (4.65, FROZEN_Y)], COLD)
    arrow(axes, [(3.75, 4.0), (3.75, TRAINED_Y), (4.65, TRAINED_Y)], WARM)


def draw_frozen_model(axes: Axes) -> None:
    """Draw the model after task t-1, which only gives targets."""
    band(axes, (4.35, 5.65), (9.4, 2.8), COLD, COLD_BAND, "--")
    label(axes, 4.6, 8.17, "frozen copy of the model after task $t-1$", color=COLD, weight="bold", ha="left")
    bus = 7.72
    arrow(axes, [(6.3, FROZEN_Y), (9.15, FROZEN_Y)], COLD)
    arrow(axes, [(6.75, FROZEN_Y), (6.75, bus), (SOFT_X, bus), (SOFT_X, 7.45)], COLD)
    axes.add_patch(Circle((6.75, FROZEN_Y), 0.06, color=COLD))
    label(axes, 7.95, 7.14, "features", color=COLD, size=11)
    parts = {
        ENCODER_X: "encoder\n$f_{t-1}$",
        FEATURE_X: "projector\n$h_{t-1}$",
        SOFT_X: "classifier\n$g_{t-1}$",
    }
    for x, text in parts.items():
        box(axes, (x, FROZEN_Y), (1.6, 0.95), text, COLD, COLD_FILL, "--")
        snowflake(axes, (x + 0.8, FROZEN_Y + 0.475))
    for x, text in {FEATURE_X: "$z_{t-1}$", SOFT_X: "soft labels"}.items():
        arrow(axes, [(x, 6.475), (x, TARGET_Y + 0.2)], COLD)
        pill(axes, (x, TARGET_Y), text, COLD)
        arrow(axes, [(x, TARGET_Y - 0.2), (x, LOSS_Y + 0.72)], COLD)


def draw_trained_model(axes: Axes) -> None:
    """Draw the model that learns; the classifier reads its features without sending a gradient back."""
    band(axes, (4.35, 0.65), (9.4, 2.9), WARM, WARM_BAND, "-")
    label(axes, 4.6, 0.92, "model in training", color=WARM, weight="bold", ha="left")
    bus = 1.3
    arrow(axes, [(6.3, TRAINED_Y), (6.8, TRAINED_Y)], WARM)
    arrow(axes, [(6.52, TRAINED_Y), (6.52, bus), (SOFT_X, bus), (SOFT_X, 1.65)], WARM)
    axes.add_patch(Circle((6.52, TRAINED_Y), 0.06, color=WARM))
    label(axes, 7.1, 1.47, "features", color=WARM, size=11)
    stop_gradient(axes, (FEATURE_X, bus))
    parts = {ENCODER_X: "encoder\n$f_t$", SSL_X: "projector\n$h_t$", SOFT_X: "classifier\n$g_t$"}
    for x, text in parts.items():
        box(axes, (x, TRAINED_Y), (1.6, 0.95), text, WARM, WARM_FILL)
    for x, text in {SSL_X: "$z_t$", SOFT_X: "logits"}.items():
        arrow(axes, [(x, 2.625), (x, OUTPUT_Y - 0.2)], WARM)
        pill(axes, (x, OUTPUT_Y), text, WARM)
        arrow(axes, [(x, OUTPUT_Y + 0.2), (x, LOSS_Y - 0.72)], WARM)
    arrow(axes, [(SSL_X + 0.6, OUTPUT_Y), (9.15, OUTPUT_Y)], WARM)
    box(axes, (FEATURE_X, OUTPUT_Y), (1.6, 0.55), "predictor", WARM, WARM_FILL)
    arrow(axes, [(FEATURE_X, 3.325), (FEATURE_X, LOSS_Y - 0.72)], WARM)
    arrow(axes, [(SOFT_X + 0.6, OUTPUT_Y), (LABEL_X, OUTPUT_Y), (LABEL_X, LOSS_Y - 0.72)], WARM)


def draw_loss(axes: Axes) -> None:
    """Draw the four terms as a sum."""
    axes.text(6.2, LOSS_Y, r"$\mathcal{L}\;=$", size=24, color=INK, ha="center", va="center")
    terms = {
        SSL_X: (r"$\mathcal{L}_\mathrm{FE}^\mathrm{CT}$", "self-supervised"),
        FEATURE_X: (r"$\mathcal{L}_\mathrm{FE}^\mathrm{KD}$", "feature distillation"),
        SOFT_X: (r"$\mathcal{L}_\mathrm{C}^\mathrm{KD}$", "soft-label distillation"),
        LABEL_X: (r"$\mathcal{L}_\mathrm{C}^\mathrm{CT}$", "cross-entropy"),
    }
    for x, (symbol, name) in terms.items():
        box(axes, (x, LOSS_Y), (1.85, 1.36), "", INK, "white")
        axes.text(x, LOSS_Y + 0.17, symbol, size=23, color=INK, ha="center", va="center")
        label(axes, x, LOSS_Y - 0.43, name, size=10.5)
    for left, right in pairwise(terms):
        axes.text((left + right) / 2, LOSS_Y, "+", size=22, color=INK, ha="center", va="center")
    label(axes, LABEL_X, 6.62, "of task and\nreplay images", size=11, color=QUIET)
    pill(axes, (LABEL_X, TARGET_Y), "labels $y$", INK)
    arrow(axes, [(LABEL_X, TARGET_Y - 0.2), (LABEL_X, LOSS_Y + 0.72)], INK)


def draw_legend(axes: Axes) -> None:
    """Explain colours and abbreviations."""
    y = 0.2
    box(axes, (4.75, y), (0.6, 0.36), "", WARM, WARM_FILL)
    label(axes, 5.2, y, "trained", ha="left")
    box(axes, (6.75, y), (0.6, 0.36), "", COLD, COLD_FILL, "--")
    snowflake(axes, (7.05, y + 0.18))
    label(axes, 7.3, y, "frozen, no gradient", ha="left")
    label(axes, 9.75, y, "task 0: no frozen copy, no replay, no KD terms", ha="left")
    abbreviations = "FE  feature extractor      C  classifier      CT  current task      KD  knowledge distillation"
    label(axes, 4.45, -0.2, abbreviations, color=QUIET, ha="left")


def label(
    axes: Axes,
    x: float,
    y: float,
    text: str,
    color: str = INK,
    size: float = 12,
    weight: str = "normal",
    ha: str = "center",
) -> None:
    """Write ``text``, vertically centred on ``y``."""
    axes.text(x, y, text, color=color, size=size, weight=weight, ha=ha, va="center", linespacing=1.25)


def box(axes: Axes, centre: Point, size: Point, text: str, edge: str, fill: str, line: str = "-") -> None:
    """Draw a box around ``centre``, of ``size`` (width, height), with text inside."""
    rounded(axes, (centre[0] - size[0] / 2, centre[1] - size[1] / 2), size, 0.1, ec=edge, fc=fill, ls=line, lw=1.8)
    axes.text(*centre, text, size=13.5, color=INK, ha="center", va="center", linespacing=1.35)


def pill(axes: Axes, centre: Point, text: str, colour: str) -> None:
    """Draw a tensor: white, with round ends."""
    rounded(axes, (centre[0] - 0.6, centre[1] - 0.2), (1.2, 0.4), 0.2, ec=colour, fc="white", lw=1.4)
    axes.text(*centre, text, size=12, color=INK, ha="center", va="center")


def band(axes: Axes, corner: Point, size: Point, edge: str, fill: str, line: str) -> None:
    """Draw the pale ground on which the parts of one model stand."""
    rounded(axes, corner, size, 0.2, ec=edge, fc=fill, ls=line, lw=1.2, zorder=0)


def rounded(axes: Axes, corner: Point, size: Point, radius: float, **style: Any) -> None:
    """Draw a rectangle with rounded corners from its lower left ``corner``."""
    shape = f"round,pad=0,rounding_size={radius}"
    axes.add_patch(FancyBboxPatch(corner, *size, boxstyle=shape, **style))


def arrow(axes: Axes, points: Sequence[Point], colour: str) -> None:
    """Draw an arrow along ``points``."""
    axes.add_patch(FancyArrowPatch(path=Outline(points), arrowstyle="-|>", mutation_scale=15, color=colour, lw=1.8))


def thumbnails(axes: Axes, corner: Point, colours: Sequence[str]) -> None:
    """Draw little pictures, a hill under a sun, four in a row."""
    for k, colour in enumerate(colours):
        x, y = corner[0] + 0.49 * (k % 4), corner[1] + 0.49 * (k // 4)
        frame = axes.add_patch(Rectangle((x, y), 0.42, 0.42, fc=colour, ec="none", alpha=0.9))
        axes.add_patch(Circle((x + 0.3, y + 0.3), 0.055, fc="white", ec="none", alpha=0.9))
        hill = axes.add_patch(Circle((x + 0.13, y - 0.04), 0.25, fc="white", ec="none", alpha=0.55))
        hill.set_clip_path(frame)


def snowflake(axes: Axes, centre: Point) -> None:
    """Mark a part as frozen."""
    axes.add_patch(Circle(centre, 0.17, fc="white", ec=COLD, lw=1.2, zorder=3))
    for k in range(6):
        angle = math.pi / 2 + k * math.pi / 3
        for start, end, turn in ((0.0, 0.12, 0.0), (0.065, 0.05, 0.9), (0.065, 0.05, -0.9)):
            x, y = centre[0] + start * math.cos(angle), centre[1] + start * math.sin(angle)
            tip = (x + end * math.cos(angle + turn), y + end * math.sin(angle + turn))
            axes.plot((x, tip[0]), (y, tip[1]), color=COLD, lw=1.1, solid_capstyle="round", zorder=4)


def stop_gradient(axes: Axes, centre: Point) -> None:
    """Mark a wire that carries values forward and no gradient back."""
    x, y = centre
    axes.add_patch(Rectangle((x - 0.09, y - 0.1), 0.18, 0.2, fc=WARM_BAND, ec="none", zorder=3))
    for shift in (-0.09, 0.09):
        axes.plot((x + shift - 0.05, x + shift + 0.05), (y - 0.17, y + 0.17), color=INK, lw=2.2, zorder=4)
    label(axes, x, y + 0.34, "stop-gradient", size=11, weight="bold")
    label(axes, x, y - 0.36, "the classifier does not train the encoder", color=QUIET, size=11)


if __name__ == "__main__":
    main()
