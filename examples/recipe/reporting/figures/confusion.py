"""Pooled confusion, one panel for each system."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure

from recipe.reporting.figures.style import HEADING, LABEL, SMALL, ink, line_height, new_figure, wrapped
from recipe.training.scores import Scores

MANY_CLASSES = 6  # from here on a cell holds its per cent alone, and no count


def confusion_figure(systems: Mapping[str, Scores], classes: Sequence[str], title: str) -> Figure:
    """Confusion of each system over all test utterances, in per cent of the true class."""
    compact = len(classes) >= MANY_CLASSES
    panel = max(2.1, (0.36 if compact else 0.58) * len(classes))
    most = 3 if compact else 4
    rows = math.ceil(len(systems) / most)
    columns = math.ceil(len(systems) / rows)
    names = {system: wrapped(system, panel, HEADING) for system in systems}
    heading = max(line_height(f"{name}\nUA, WA, n", HEADING) for name in names.values())
    labels = 0.075 * max(map(len, classes))  # inches that the class names take
    width = columns * (panel + 0.14) + labels + 0.4
    figure = new_figure(width, rows * (panel + heading + 0.25) + 0.7 * labels + 0.4, title)
    grid = figure.subplots(rows, columns, squeeze=False)
    colours = colormaps["Blues"].with_extremes(bad="0.9")
    for axis in grid.flat[len(systems) :]:
        axis.remove()
    for place, (axis, (system, scores)) in enumerate(zip(grid.flat, systems.items(), strict=False)):
        counts = np.array(scores.confusion)
        totals = counts.sum(axis=1, keepdims=True)
        shares = np.divide(counts, totals, where=totals > 0, out=np.full(counts.shape, np.nan))
        axis.imshow(shares, cmap=colours, vmin=0, vmax=1)
        for (row, column), share in np.ndenumerate(shares):
            axis.text(
                column,
                row,
                cell(share, counts[row, column], compact),
                ha="center",
                va="center",
                fontsize=SMALL,
                color=ink(colours(share)),
            )
        axis.set_title(f"{names[system]}\nUA {scores.ua:.1%}, WA {scores.wa:.1%}, n = {counts.sum()}", fontsize=HEADING)
        axis.set_xticks(range(len(classes)), [])
        axis.set_yticks(range(len(classes)), [])
        if place + columns >= len(systems):  # nothing under it
            axis.set_xticklabels(classes, rotation=40, ha="right", rotation_mode="anchor", fontsize=LABEL)
            for text in axis.get_xticklabels():
                text.set_in_layout(place // columns == rows - 1)  # elsewhere it hangs into the gap of the last row
        if place % columns == 0:
            axis.set_yticklabels(classes, fontsize=LABEL)
    figure.supxlabel("predicted class", fontsize=LABEL)
    figure.supylabel("true class", fontsize=LABEL)
    return figure


def cell(share: float, count: int, compact: bool) -> str:
    if np.isnan(share):  # no test utterance is of that class
        return "–"  # noqa: RUF001
    return f"{100 * share:.0f}" if compact else f"{share:.0%}\n({count})"
