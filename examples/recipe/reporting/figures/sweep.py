"""UA against one setting (sweep) or two (heat map)."""

from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike

from recipe.reporting.figures.style import (
    COLOURS,
    LABEL,
    SMALL,
    ink,
    new_figure,
    number,
    open_frame,
    percent_ticks,
)

Setting = float | str


def heat_map_figure(
    rows: Sequence[Setting],
    columns: Sequence[Setting],
    values: ArrayLike,
    deviations: ArrayLike,
    row_name: str,
    column_name: str,
    title: str,
    framed: tuple[int, int] | None = None,
) -> Figure:
    """UA of each pair of settings, (rows, columns), with its standard deviation; one cell, (row, column), framed.

    A value that is nan was not run, and is grey. A deviation that is nan or None is left out.
    """
    values, deviations = np.array(values, dtype=float), np.array(deviations, dtype=float)
    figure = new_figure(max(4.2, 0.8 * len(columns) + 1.9), 0.6 * len(rows) + 0.9, title)
    axis = figure.subplots()
    ran = np.isfinite(values)
    low, high = (values[ran].min(), values[ran].max()) if ran.any() else (0.0, 1.0)
    image = axis.imshow(values, cmap=colormaps["Blues"].with_extremes(bad="0.85"), vmin=low, vmax=high, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        if not ran[row, column]:
            axis.text(column, row, "not run", ha="center", va="center", fontsize=SMALL, color="0.35")
            continue
        text = percent(value, deviations[row, column])
        colour = ink(image.to_rgba(value))
        axis.text(column, row, text, ha="center", va="center", fontsize=SMALL, color=colour)
    if framed is not None:
        row, column = framed
        frame = {"fill": False, "edgecolor": COLOURS[1], "linewidth": 3, "clip_on": False, "zorder": 3}
        axis.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, **frame))
    axis.set_xticks(range(len(columns)), map(number, columns), fontsize=LABEL)
    axis.set_yticks(range(len(rows)), map(number, rows), fontsize=LABEL)
    axis.set_xlabel(column_name, fontsize=LABEL)
    axis.set_ylabel(row_name, fontsize=LABEL)
    bar = figure.colorbar(image)
    percent_ticks(bar.ax.yaxis)
    bar.set_label("UA", fontsize=LABEL)
    bar.ax.tick_params(labelsize=SMALL)
    return figure


def sweep_figure(
    weights: Sequence[float],
    means: Sequence[float],
    deviations: Sequence[float | None],
    weight_name: str,
    title: str,
) -> Figure:
    """UA against one loss weight, with its standard deviation; a dashed line carries on the UA without the loss.

    The weights are spaced evenly, whatever their values. A mean that is nan was not run.
    """
    order = np.argsort(weights)
    weights, means, deviations = (np.array(of, dtype=float)[order] for of in (weights, means, deviations))
    places = np.arange(len(weights))
    ran = np.isfinite(means)
    figure = new_figure(max(4.2, 0.75 * len(weights) + 1.2), 3.0, title)
    axis = figure.subplots()
    for mean in means[(weights == 0) & ran]:
        axis.axhline(mean, color="0.45", linestyle="--", linewidth=1, zorder=1)
        axis.text(1.01, mean, "weight 0", transform=axis.get_yaxis_transform(), va="center", fontsize=SMALL)
    axis.errorbar(places, means, yerr=deviations, color=COLOURS[0], marker="o", markersize=5, capsize=4)
    tops = means + np.nan_to_num(deviations)
    for place, mean, top in zip(places[ran], means[ran], tops[ran], strict=True):
        axis.annotate(f"{mean:.1%}", (place, top), (0, 4), textcoords="offset points", ha="center", fontsize=SMALL)
    names = [number(weight) + ("" if done else "\nnot run") for weight, done in zip(weights, ran, strict=True)]
    axis.set_xticks(places, names)
    axis.set_xlim(-0.5, len(weights) - 0.5)
    axis.set_xlabel(weight_name, fontsize=LABEL)
    axis.set_ylabel("UA", fontsize=LABEL)
    axis.margins(y=0.12)
    percent_ticks(axis.yaxis)
    axis.grid(axis="y", color="0.9", linewidth=0.6)
    open_frame(axis)
    return figure


def percent(value: float, deviation: float) -> str:
    return f"{value:.1%}" + (f"\n± {deviation:.1%}" if np.isfinite(deviation) else "")
