"""The ablations of the paper's Tables 4 and 5, and their report."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from recipe.experiment import Experiment
from recipe.files import write_text
from recipe.reporting.cells import WATCHED, markdown, percent, spread, watched
from recipe.reporting.figures.style import save
from recipe.reporting.figures.sweep import heat_map_figure, sweep_figure
from recipe.reporting.report import LEVEL, caveats, data, settings_text
from recipe.reporting.results import RunResults, deviation, validation_ua
from recipe.training.systems import CLS, STAGE_1, System, eal_system, fual_system


@dataclass(frozen=True)
class Grid:
    """EAL's margins and weights, and the system of each pair."""

    margins: Sequence[float]
    weights: Sequence[float]
    systems: dict[tuple[float, float], System]

    def best(self, results: RunResults) -> list[tuple[float, float]]:
        """The pairs with the highest UA on validation, mean over trainings: test has no say."""
        found = {pair: validation_ua(results, system) for pair, system in self.systems.items()}
        return [pair for pair, ua in found.items() if math.isclose(ua, max(found.values()))]


def train_ablations(experiment: Experiment) -> None:
    options, settings = experiment.options, experiment.options.settings
    pairs = product(options.margins, options.eal_weights)
    grid = Grid(options.margins, options.eal_weights, {pair: eal_system(*pair, settings) for pair in pairs})
    systems = [STAGE_1, System(CLS), *grid.systems.values()]
    found = experiment.train(systems, lambda results: write_report(results, grid, {}), name="ablation")
    margin, weight = grid.best(found)[0]
    sweep = {fual: fual_system(margin, weight, fual, settings) for fual in options.fual_weights}
    known = {system.name for system in systems}
    systems += [system for system in sweep.values() if system.name not in known]
    experiment.train(systems, lambda results: write_report(results, grid, sweep), name="ablation")


def write_report(results: RunResults, grid: Grid, sweep: dict[float, System]) -> str:
    """Write `ablation.md` and its figures; the table that is new in it, for the terminal."""
    name = results.corpus.name
    means, deviations = grid_scores(results, grid)
    (margin, weight), *equals = grid.best(results)
    framed = grid.margins.index(margin), grid.weights.index(weight)
    heat_map = heat_map_figure(
        grid.margins,
        grid.weights,
        means,
        deviations,
        "margin",
        "EAL weight",
        f"{name}\nUA of CLS + EAL on test; framed: the best on validation",
        framed if np.isfinite(means[framed]) else None,
    )
    save(heat_map, results.output / "ablation_eal.png")
    finished = {system.name for system in results.systems if results.of(system)}
    swept = {weight: system for weight, system in sweep.items() if system.name in finished}
    sections = [
        f"# Ablations on {results.corpus.name}",
        *caveats(results),
        "Every system starts from the same stage 1 of its fold and seed as those of the main experiment in this "
        "folder. UA and WA are on test speakers, mean ± standard deviation over folds and seeds.",
        "## Table 4: EAL's margin and weight",
        "CLS pooling with cross-entropy and EAL, without FUAL. (The paper's text does not say whether FUAL was on.)",
        grid_table(results, grid),
        "![UA by margin and weight](ablation_eal.png)",
        baseline_line(results),
    ]
    if swept:
        scores = [[r.scores.ua for r in results.of(system)] for system in swept.values()]
        sweep_of_fual = sweep_figure(
            list(swept),
            [float(np.mean(uas)) for uas in scores],
            [deviation(uas) for uas in scores],
            "FUAL weight",
            f"{name}\nUA of CLS + EAL (margin {margin:g}, weight {weight:g}) + FUAL",
        )
        save(sweep_of_fual, results.output / "ablation_fual.png")
        sections += [
            "## Table 5: FUAL's weight",
            f"At EAL's margin {margin:g} and weight {weight:g}: the best of Table 4 by UA on *validation*"
            + "".join(f", as are margin {margin:g} and weight {weight:g}" for margin, weight in equals)
            + (", of which it is the first" if equals else "")
            + ". Test had no say in it.",
            sweep_table(results, swept),
            "![UA by FUAL weight](ablation_fual.png)",
        ]
    losses = "EAL's margin and weight and FUAL's weight as the tables have them"
    sections += [significance(results), "## Data", data(results), "## Settings", settings_text(results, losses)]
    write_text(results.output / "ablation.md", "\n\n".join(sections) + "\n")
    shown = swept.values() if sweep else [system for system in results.systems if system.name in finished]
    lines = [f"  {system.name:<44} UA {spread([r.scores.ua for r in results.of(system)])}" for system in shown]
    title = f"Table 5, at margin {margin:g} and EAL weight {weight:g}" if sweep else "Table 4"
    return "\n".join(["", f"{title}:", *lines, f"report: {results.output / 'ablation.md'}"])


def grid_scores(results: RunResults, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """UA and its standard deviation, (margins, weights); nan where nothing is finished."""
    means = np.full((len(grid.margins), len(grid.weights)), np.nan)
    deviations = means.copy()
    for (row, margin), (column, weight) in product(enumerate(grid.margins), enumerate(grid.weights)):
        if uas := [result.scores.ua for result in results.of(grid.systems[margin, weight])]:
            means[row, column] = np.mean(uas)
            deviations[row, column] = np.nan if deviation(uas) is None else deviation(uas)
    return means, deviations


def grid_table(results: RunResults, grid: Grid) -> str:
    return markdown(
        ["margin", "EAL weight", *SCORES],
        [
            [f"{margin:g}", f"{weight:g}", *score_cells(results, system)]
            for (margin, weight), system in grid.systems.items()
            if results.of(system)
        ],
    )


def sweep_table(results: RunResults, sweep: dict[float, System]) -> str:
    return markdown(
        ["FUAL weight", *SCORES],
        [[f"{weight:g}", *score_cells(results, system)] for weight, system in sweep.items()],
    )


def score_cells(results: RunResults, system: System) -> list[str]:
    found = results.of(system)
    return [
        spread([r.scores.ua for r in found]),
        spread([r.scores.wa for r in found]),
        percent(validation_ua(results, system)),
        *watched(found),
    ]


SCORES = ["UA", "WA", "UA on validation", *WATCHED]


def baseline_line(results: RunResults) -> str:
    found = [r for system in results.systems if system.name == CLS for r in results.of(system)]
    if not found:
        return ""
    return f"CLS pooling with cross-entropy alone: UA {spread([r.scores.ua for r in found])}."


def significance(results: RunResults) -> str:
    compared = [c for c in results.comparisons if c.adjusted_p < LEVEL]
    listed = ", ".join(f"{c.system.name} ({100 * c.difference:+.1f} points)" for c in compared)
    return f"Paired test over trainings, Holm for {len(results.comparisons)} comparisons: " + (
        f"these differ significantly from CLS pooling: {listed}."
        if compared
        else "none differs significantly from CLS pooling."
    )
