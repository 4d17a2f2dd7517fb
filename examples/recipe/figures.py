"""The figures of a run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from sklearn.manifold import TSNE

from recipe.audio import SAMPLE_RATE
from recipe.scores import Scores

# Okabe and Ito's colours, which readers with any colour vision can tell apart
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#F0E442", "#000000")


def draw_confusion(path: Path, systems: Mapping[str, Scores], classes: Sequence[str], title: str) -> None:
    """Confusion of each system over all test utterances, in per cent of the true class."""
    size = 1.4 + 0.75 * len(classes)
    figure = Figure(figsize=(size * len(systems) + 0.4, size + 0.8), layout="constrained")
    figure.get_layout_engine().set(h_pad=0.12, w_pad=0.1)
    figure.suptitle(title, fontsize=11)
    axes = figure.subplots(1, len(systems), squeeze=False)[0]
    for axis, (system, scores) in zip(axes, systems.items(), strict=True):
        counts = np.array(scores.confusion)
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for (row, column), share in np.ndenumerate(shares):
            axis.text(
                column,
                row,
                f"{share:.0%}\n({counts[row, column]})",
                ha="center",
                va="center",
                fontsize=8,
                color="white" if share > 0.55 else "black",
            )
        axis.set_title(f"{system}\nUA {scores.ua:.1%}, WA {scores.wa:.1%}", fontsize=10)
        axis.set_xticks(range(len(classes)), classes, rotation=40, ha="right")
        axis.set_yticks(range(len(classes)), classes)
        axis.set_xlabel("predicted")
        axis.set_ylabel("true")
    figure.savefig(path, dpi=130)


def draw_tsne(
    path: Path, systems: Mapping[str, np.ndarray], labels: Sequence[int], classes: Sequence[str], title: str
) -> None:
    """Utterance vectors of one fold's test speakers in two dimensions, one panel for each system."""
    figure = Figure(figsize=(4.6 * len(systems), 5.4), layout="constrained")
    figure.suptitle(title, fontsize=11)
    axes = figure.subplots(1, len(systems), squeeze=False)[0]
    truth = np.array(labels)
    for axis, (system, vectors) in zip(axes, systems.items(), strict=True):
        perplexity = min(30.0, (len(vectors) - 1) / 3)
        points = TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(vectors)
        for index, name in enumerate(classes):
            axis.scatter(*points[truth == index].T, s=14, color=COLOURS[index % len(COLOURS)], label=name)
        axis.set_title(system, fontsize=10)
        axis.set_xticks([])
        axis.set_yticks([])
        axis.set_xlabel("t-SNE 1")
        axis.set_ylabel("t-SNE 2")
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=min(len(classes), 8), frameon=False)
    figure.savefig(path, dpi=130)


@dataclass(frozen=True)
class Timeline:
    """One utterance, frame by frame."""

    title: str
    waveform: np.ndarray  # (samples,)
    weights: np.ndarray  # (frames,)
    probabilities: np.ndarray  # (frames, classes)


def draw_timeline(path: Path, timeline: Timeline, classes: Sequence[str]) -> None:
    """Waveform, attention over time, and the class probabilities of every frame."""
    seconds = len(timeline.waveform) / SAMPLE_RATE
    frames = len(timeline.weights)
    edges = np.linspace(0, seconds, frames + 1)
    figure = Figure(figsize=(9, 6.4), layout="constrained")
    figure.suptitle(timeline.title)
    wave, attention, classes_axis = figure.subplots(3, 1, sharex=True, height_ratios=(1, 1, 1.4))

    wave.plot(np.arange(len(timeline.waveform)) / SAMPLE_RATE, timeline.waveform, linewidth=0.4, color="0.3")
    wave.set_ylabel("amplitude")
    attention.stairs(timeline.weights, edges, fill=True, color=COLOURS[0])
    attention.axhline(1 / frames, color="0.3", linestyle="--", linewidth=1)
    attention.text(
        0.01, 1 / frames, "uniform", transform=attention.get_yaxis_transform(), va="center", fontsize=8,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5},
    )  # fmt: skip
    attention.set_ylabel("attention weight\nof the frame")
    attention.set_ylim(0, 1.15 * max(timeline.weights.max(), 1 / frames))
    centres = (edges[:-1] + edges[1:]) / 2
    classes_axis.stackplot(
        centres,
        timeline.probabilities.T,
        labels=classes,
        colors=[COLOURS[i % len(COLOURS)] for i in range(len(classes))],
    )
    classes_axis.set_ylim(0, 1)
    classes_axis.set_xlim(0, seconds)
    classes_axis.set_ylabel("class probability\nof the frame")
    classes_axis.set_xlabel("time in seconds")
    handles, names = classes_axis.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=min(len(classes), 8), frameon=False)
    figure.savefig(path, dpi=130)
