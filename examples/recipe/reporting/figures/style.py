"""What all figures share: colours, line styles, titles that fit, and one resolution."""

import math
import textwrap
import zlib
from pathlib import Path
from typing import IO, Any

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.text import Text

from recipe.files import replacing
from recipe.settings import Settings
from recipe.training.systems import STAGE_1, further_systems, paper_systems

# Okabe and Ito's colours, which readers with any colour vision can tell apart
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#F0E442", "#000000")
LINE_COLOURS = tuple(colour for colour in COLOURS if colour != "#F0E442")  # yellow is too pale for a thin line
LINE_STYLES = ("-", "--", "-.", ":")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
SYSTEMS = [s.name for s in (STAGE_1, *paper_systems(Settings()), *further_systems(Settings()))]
LOOKS = len(LINE_COLOURS) * len(LINE_STYLES)

TITLE, HEADING, LABEL, SMALL = 11, 9.5, 9, 8  # font sizes in points


def new_figure(width: float, height: float, title: str) -> Figure:
    """An empty figure of that many inches, and on top of them the title, broken into lines that fit."""
    title = wrapped(title, width, TITLE)
    figure = Figure(figsize=(width, height + line_height(title, TITLE)), layout="constrained")
    figure.get_layout_engine().set(h_pad=0.06, w_pad=0.06)
    figure.suptitle(title, fontsize=TITLE)
    return figure


def save(figure: Figure, file: Path | IO[bytes]) -> None:
    for text in figure.findobj(Text):
        text.set_parse_math(False)  # a dollar sign in a file's or class's name is a dollar sign
    if isinstance(file, Path):  # whole or not there, as all files
        with replacing(file) as partial:
            figure.savefig(partial, format=file.suffix[1:], dpi=200)
    else:
        figure.savefig(file, dpi=200)


def wrapped(text: str, inches: float, size: float) -> str:
    """The text in lines that are at most so wide in that font size."""
    letters = max(8, int(inches * 72 / (0.6 * size)))
    return "\n".join(textwrap.fill(line, letters, break_long_words=False) for line in text.splitlines())


def line_height(text: str, size: float) -> float:
    """Inches that the lines of a text take."""
    return (text.count("\n") + 1) * 1.25 * size / 72


def class_colour(index: int) -> str:
    return COLOURS[index % len(COLOURS)]


def line_style(system: str) -> dict[str, Any]:
    """Colour, dashes and marker of a system's line, the same in every run.

    No two of the recipe's own systems are alike, and the paper's differ in colour. Others take one of the looks that
    are left, by their names.
    """
    if system in SYSTEMS:
        index = SYSTEMS.index(system)
    else:
        index = len(SYSTEMS) + zlib.crc32(system.encode()) % (LOOKS - len(SYSTEMS))
    return {
        "color": LINE_COLOURS[index % len(LINE_COLOURS)],
        "linestyle": LINE_STYLES[index % len(LINE_STYLES)],
        "marker": MARKERS[index % len(MARKERS)],
    }


def ink(colour: tuple[float, ...]) -> str:
    """Black or white, whichever reads better on the colour."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour[:3]]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "black" if luminance > 0.25 else "white"


def legend_below(figure: Figure, handles: list, names: list[str], **options: Any) -> None:
    """One legend for the whole figure, in as few rows as fit; the figure grows by it."""
    widths = [0.6 * LABEL / 72 * len(name) + 0.7 for name in names]  # inches, with the handle
    for rows in range(1, len(names) + 1):
        columns = math.ceil(len(names) / rows)
        if sum(max(widths[start : start + rows]) for start in range(0, len(names), rows)) < figure.get_figwidth():
            break
    figure.set_figheight(figure.get_figheight() + rows * line_height("", LABEL) + 0.2)
    figure.legend(handles, names, loc="outside lower center", ncols=columns, frameon=False, fontsize=LABEL, **options)


def open_frame(axis: Axes) -> None:
    """Only the two spines that carry a scale."""
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=SMALL)


def percent_ticks(axis: Axis) -> None:
    """60% or 62.5%, as the tick needs; none beyond 100%, where margins may reach."""
    axis.set_major_formatter(lambda value, _: f"{100 * value:g}%" if -1e-9 < value < 1 + 1e-9 else "")


def number(value: Any) -> str:
    """A setting as a tick label: 0.1 rather than 0.10, and text as it is."""
    return value if isinstance(value, str) else f"{value:g}"
