"""One utterance, frame by frame."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from recipe.data.audio import SAMPLE_RATE
from recipe.reporting.figures.style import (
    HEADING,
    LABEL,
    SMALL,
    class_colour,
    ink,
    legend_below,
    new_figure,
    open_frame,
)

FEW = 10  # segments whose ends are drawn through all of the figure


@dataclass(frozen=True)
class FrameOutputs:
    """What one system says of each frame of an utterance."""

    weights: np.ndarray  # (frames,)
    probabilities: np.ndarray  # (frames, classes)


def timeline_figure(
    waveform: np.ndarray,
    timelines: Mapping[str, FrameOutputs],
    classes: Sequence[str],
    title: str,
    bar: Sequence[tuple[str, float]] = (),
    *,
    bar_name: str = "truth",
    seconds: float | None = None,
    width: float = 7.5,
) -> Figure:
    """Waveform, then for each system its attention over time and the class probabilities of every frame.

    The attention of all systems has one scale.

    Args:
        waveform: Samples at equal distances.
        bar: Drawn above, one class after the other: each, and the second at which it ends.
        seconds: How long the waveform is, where its samples are not at `SAMPLE_RATE`.
        width: In inches.
    """
    seconds = seconds or len(waveform) / SAMPLE_RATE
    figure = new_figure(width, 1.5 + 2.5 * len(timelines) + 0.35 * bool(bar), title)
    rows = 1 + 2 * len(timelines) + bool(bar)
    heights = (*(0.3,) * bool(bar), 0.8, *(1, 1.1) * len(timelines))
    *above, wave = figure.subplots(rows, 1, sharex=True, height_ratios=heights)[: rows - 2 * len(timelines)]
    axes = figure.axes[-2 * len(timelines) :]
    for strip in above:
        draw_bar(strip, bar, classes, bar_name)
    wave.plot(np.linspace(0, seconds, len(waveform), endpoint=False), waveform, linewidth=0.4, color="0.3")
    wave.set_ylabel("amplitude", fontsize=LABEL)
    wave.set_xlim(0, seconds)
    top = 1.12 * max(max(outputs.weights.max(), 1 / len(outputs.weights)) for outputs in timelines.values())
    for attention, frame_classes, (system, outputs) in zip(axes[::2], axes[1::2], timelines.items(), strict=True):
        frames = len(outputs.weights)
        edges = np.linspace(0, seconds, frames + 1)
        attention.stairs(outputs.weights, edges, fill=True, color="0.55")  # no class's colour
        attention.axhline(1 / frames, color="black", linestyle="--", linewidth=1)
        attention.text(
            1.006, 1 / frames, "uniform", transform=attention.get_yaxis_transform(), va="center", fontsize=SMALL
        )
        attention.set_ylim(0, top)
        attention.set_ylabel("attention\nweight", fontsize=LABEL)
        attention.set_title(system, loc="left", fontsize=HEADING, fontweight="bold")

        below = np.zeros(frames)
        for index, probabilities in enumerate(outputs.probabilities.T):
            above = below + probabilities
            frame_classes.stairs(above, edges, baseline=below, fill=True, color=class_colour(index))
            below = above
        frame_classes.set_ylim(0, 1)
        frame_classes.set_yticks([0, 0.5, 1])
        frame_classes.set_ylabel("class\nprobability", fontsize=LABEL)
    changes = [end for _, end in bar[:-1]] if len(bar) <= FEW else []
    for axis in (wave, *axes):
        open_frame(axis)
        for change in changes:
            axis.axvline(change, color="black", linewidth=1.2)
    axes[-1].set_xlabel("time in seconds", fontsize=LABEL)
    figure.align_ylabels()
    legend_below(figure, [Patch(color=class_colour(index)) for index in range(len(classes))], list(classes))
    return figure


def draw_bar(axis: Axes, bar: Sequence[tuple[str, float]], classes: Sequence[str], name: str) -> None:
    """In the colour of each class, with its name where there is room."""
    start, seconds, letter = 0.0, bar[-1][1], 0.11 / axis.figure.get_figwidth()
    for label, end in bar:
        colour = class_colour(classes.index(label))
        axis.axvspan(start, end, color=colour)
        if (end - start) / seconds > letter * len(label):
            middle = (start + end) / 2
            axis.text(middle, 0.5, label, ha="center", va="center", fontsize=LABEL, color=ink(to_rgb(colour)))
        start = end
    axis.set_ylim(0, 1)
    axis.set_yticks([])
    axis.set_ylabel(name, fontsize=LABEL, rotation=0, ha="right", va="center")
    axis.spines[:].set_visible(False)
    axis.tick_params(bottom=False)
