"""The figures of a run: each `draw_...` writes one PNG, each `..._figure` builds it without writing."""

from recipe.reporting.figures.confusion import confusion_figure, draw_confusion
from recipe.reporting.figures.curves import curves_figure, draw_curves
from recipe.reporting.figures.scores import draw_scores, scores_figure
from recipe.reporting.figures.style import COLOURS
from recipe.reporting.figures.sweep import draw_heat_map, draw_sweep, heat_map_figure, sweep_figure
from recipe.reporting.figures.timeline import FrameOutputs, draw_timeline, timeline_figure
from recipe.reporting.figures.tsne import draw_tsne, tsne_figure

__all__ = [
    "COLOURS",
    "FrameOutputs",
    "confusion_figure",
    "curves_figure",
    "draw_confusion",
    "draw_curves",
    "draw_heat_map",
    "draw_scores",
    "draw_sweep",
    "draw_timeline",
    "draw_tsne",
    "heat_map_figure",
    "scores_figure",
    "sweep_figure",
    "timeline_figure",
    "tsne_figure",
]
