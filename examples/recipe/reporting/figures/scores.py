"""UA of every system, with its interval: what a reader sees first."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from recipe.reporting.figures.style import COLOURS, LABEL, SMALL, new_figure, open_frame, percent_ticks, wrapped


def scores_figure(scores: Mapping[str, tuple[float, float, float]], chance: float, title: str) -> Figure:
    """UA of each system's pooled test utterances, (mean, low, high), with its 95 % interval, beside chance.

    Low and high are nan where there is no interval.
    """
    figure = new_figure(7.5, 0.3 * len(scores) + 0.9, title)
    axis = figure.subplots()
    means, lows, highs = np.array([tuple(score) for score in scores.values()], dtype=float).T
    places = np.arange(len(scores))
    known = np.isfinite(lows) & np.isfinite(highs)
    axis.hlines(places[known], lows[known], highs[known], color=COLOURS[0], linewidth=2.2, alpha=0.55)
    axis.plot(means, places, "o", color=COLOURS[0], markersize=6)
    axis.axvline(chance, color="0.35", linestyle="--", linewidth=1)
    above = {"textcoords": "offset points", "fontsize": SMALL, "color": "0.35", "annotation_clip": False}
    axis.annotate(
        f"chance, {chance:.1%}", (chance, 1), (0, 5), xycoords=axis.get_xaxis_transform(), ha="center", **above
    )
    axis.annotate("UA [95 % interval]", (1.02, 1), (0, 5), xycoords="axes fraction", **above)
    for place, mean, low, high in zip(places, means, lows, highs, strict=True):
        text = f"{mean:.1%}" + (f"  [{100 * low:.1f}, {100 * high:.1f}]" if known[place] else "")
        axis.text(1.02, place, text, transform=axis.get_yaxis_transform(), va="center_baseline", fontsize=LABEL)
    axis.set_yticks(places, [wrapped(system, 2.7, LABEL) for system in scores])
    axis.set_ylim(len(scores) - 0.5, -0.5)  # the first on top
    axis.set_xlabel("UA", fontsize=LABEL)
    percent_ticks(axis.xaxis)
    axis.grid(axis="x", color="0.9", linewidth=0.6)
    axis.set_axisbelow(True)
    open_frame(axis)
    axis.spines["left"].set_visible(False)
    axis.tick_params(axis="y", length=0, labelsize=LABEL)
    return figure
