"""Utterance vectors in two dimensions."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from sklearn.manifold import TSNE
from sklearn.metrics import silhouette_score

from recipe.reporting.figures.style import (
    HEADING,
    LABEL,
    MARKERS,
    class_colour,
    legend_below,
    new_figure,
    wrapped,
)

PANEL = 3.6  # inches


def tsne_figure(systems: Mapping[str, np.ndarray], labels: Sequence[int], classes: Sequence[str], title: str) -> Figure:
    """Utterance vectors of the same utterances in two dimensions, one panel for each system.

    Every panel is an embedding of its own: positions and distances of one panel say nothing about another's. The
    silhouette below it is of the vectors themselves, by cosine, and can be compared: near 1 where the classes are
    far apart, near 0 where they overlap. A class mean is the mean of its points in the picture.
    """
    figure = new_figure((PANEL + 0.15) * len(systems) + 0.1, PANEL + 0.55, title)
    axes = figure.subplots(1, len(systems), squeeze=False)[0]
    truth = np.array(labels)
    handles, mean_look = {}, {"edgecolors": "black", "linewidths": 1.2, "s": 110, "zorder": 3}
    for axis, (system, vectors) in zip(axes, systems.items(), strict=True):
        points = embed(np.asarray(vectors))
        for index in np.unique(truth):
            of_class = points[truth == index]
            look = {"color": class_colour(index), "marker": MARKERS[index % len(MARKERS)]}
            handles[classes[index]] = axis.scatter(*of_class.T, s=16, alpha=0.75, linewidths=0, **look)
            if len(of_class) > 1:
                axis.scatter(*of_class.mean(axis=0), **mean_look, **look)
        axis.set_title(wrapped(system, PANEL, HEADING), fontsize=HEADING)
        axis.set_xticks([])
        axis.set_yticks([])
        axis.margins(0.08)
        axis.set_box_aspect(1)
        axis.spines[:].set_color("0.6")
        axis.set_xlabel(f"silhouette of the true classes: {silhouette(vectors, truth)}", fontsize=LABEL)
    entries = {name: handles[name] for name in classes if name in handles}
    if len(np.unique(truth)) < len(truth):  # some class has a mean
        outlined = Line2D([], [], linestyle="", marker="o", markersize=6, color="white", markeredgecolor="black")
        entries["mean of a class"] = outlined
    legend_below(figure, list(entries.values()), list(entries), markerscale=1.4)
    return figure


def embed(vectors: np.ndarray) -> np.ndarray:
    """t-SNE to (utterances, 2); vectors that are all equal have no picture but one point."""
    if len(np.unique(vectors, axis=0)) < 2:
        return np.zeros((len(vectors), 2))
    perplexity = min(30.0, (len(vectors) - 1) / 3)
    start = "pca" if min(vectors.shape) >= 2 else "random"
    return TSNE(perplexity=perplexity, init=start, random_state=0).fit_transform(vectors)


def silhouette(vectors: np.ndarray, truth: np.ndarray) -> str:
    if not 2 <= len(np.unique(truth)) < len(truth):
        return "undefined"
    return f"{silhouette_score(vectors, truth, metric='cosine'):.2f}"
