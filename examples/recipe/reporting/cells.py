"""How tables and sentences of every report are written."""

from collections.abc import Sequence

import numpy as np

from recipe.reporting.results import deviation
from recipe.training.result import Result

# framealign's diagnostics that the losses move
WATCHED = ["cosine to the anchor", "frame variance", "frames that agree"]


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


def bracket(interval: tuple[float, float] | None, spec: str = ".1f", scale: float = 100.0) -> str:
    return "" if interval is None else f" [{scale * interval[0]:{spec}}, {scale * interval[1]:{spec}}]"


def counted(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")
