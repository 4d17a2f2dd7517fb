"""How training went, epoch by epoch."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from recipe.reporting.figures.style import (
    HEADING,
    LABEL,
    legend_below,
    line_style,
    new_figure,
    open_frame,
    percent_ticks,
)

PANELS = {
    "cross_entropy": "training\ncross-entropy",
    "validation_ua": "validation UA",
    "validation_anchor_cosine": "mean cosine\nto the anchor",
}

Trainings = Sequence[Sequence[Mapping[str, float]]]  # for each training, the record of each of its epochs


def curves_figure(curves: Mapping[str, Trainings], title: str) -> Figure:
    """Mean over a system's trainings, with a band of one standard deviation to either side.

    Systems named "stage 1..." have a column of their own. Where trainings differ in length, an epoch's mean is over
    those that reached it. The anchor is the one of `framealign.diagnostics`: the CLS, or the utterance vector of a
    pooling without one.
    """
    stages = {
        "stage 1": [system for system in curves if system.startswith("stage 1")],
        "stage 2": [system for system in curves if not system.startswith("stage 1")],
    }
    stages = {stage: systems for stage, systems in stages.items() if systems}
    figure = new_figure(4.2 * len(stages) + 0.4, 6.2, title)
    grid = figure.subplots(len(PANELS), len(stages), squeeze=False, sharex="col", sharey="row")
    for column, (stage, systems) in zip(grid.T, stages.items(), strict=True):
        column[0].set_title(stage, fontsize=HEADING, fontweight="bold")
        for axis, key in zip(column, PANELS, strict=True):
            for system in systems:
                draw_line(axis, curves[system], key, system)
            axis.grid(axis="y", color="0.9", linewidth=0.6)
            axis.set_axisbelow(True)
            open_frame(axis)
        column[-1].set_xlabel("epoch", fontsize=LABEL)
        column[-1].xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        longest = max((len(records) for system in systems for records in curves[system]), default=1)
        column[-1].set_xlim(0.5, longest + 0.5)
    for axis, name in zip(grid[:, 0], PANELS.values(), strict=True):
        axis.set_ylabel(name, fontsize=LABEL)
    percent_ticks(grid[list(PANELS).index("validation_ua"), 0].yaxis)
    figure.align_ylabels()
    lines = {line.get_label(): line for axis in grid[0] for line in axis.get_lines()}
    legend_below(figure, [lines[system] for system in curves], list(curves), handlelength=3.2)
    return figure


def draw_line(axis: Axes, trainings: Trainings, key: str, system: str) -> None:
    style = line_style(system)
    by_epoch: dict[int, list[float]] = {}
    for record in (record for records in trainings for record in records):
        by_epoch.setdefault(int(record["epoch"]), []).append(record[key])
    epochs = sorted(by_epoch)
    means = np.array([np.mean(by_epoch[epoch]) for epoch in epochs])
    # one training has no deviation, and then no band
    spread = np.array([np.std(by_epoch[epoch], ddof=1) if len(by_epoch[epoch]) > 1 else np.nan for epoch in epochs])
    axis.plot(epochs, means, label=system, linewidth=1.4, markersize=4, **style)
    axis.fill_between(epochs, means - spread, means + spread, color=style["color"], alpha=0.12, linewidth=0)
    if len(epochs) == 1:  # the band of one epoch has no width
        axis.vlines(epochs, means - spread, means + spread, color=style["color"], alpha=0.4, linewidth=1.4)
