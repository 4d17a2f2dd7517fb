"""How tables and sentences of every report are written."""

from collections.abc import Sequence

import numpy as np

from recipe.reporting.results import deviation
from recipe.training.result import Result

# framealign's diagnostics that the losses move
WATCHED = ["cosine to the CLS", "frame variance", "frames that agree"]


def watched(found: Sequence[Result]) -> list[str]:
    """Their means over trainings."""

    def mean(name: str) -> float:
        return float(np.mean([result.diagnostics[name] for result in found]))

    return [f"{mean('anchor_cosine'):.3f}", f"{mean('frame_variance'):.3f}", percent(mean("frame_agreement"))]


def markdown(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def percent(value: float) -> str:
    return f"{value:.1%}"


def spread(values: Sequence[float]) -> str:
    found = deviation(values)
    return percent(float(np.mean(values))) + ("" if found is None else f" ± {percent(found)}")


def bracket(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f" [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]"


def counted(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")
