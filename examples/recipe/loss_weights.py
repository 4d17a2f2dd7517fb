"""How strong EAL and FUAL should be, and the choices that the paper leaves open; chosen on validation speakers."""

import numpy as np

from recipe.experiment import Experiment
from recipe.files import write_text
from recipe.reporting.cells import WATCHED, bracket, markdown, percent, spread, watched
from recipe.reporting.figures.style import save
from recipe.reporting.over_time import intervals, measured, tally
from recipe.reporting.report import caveats, data, settings_text
from recipe.reporting.results import RunResults, validation_ua
from recipe.reporting.showcase import splice_figure
from recipe.training.systems import ATTENTIVE, CLS, PROPOSED, STAGE_1, System, variants, weighted_systems

BASELINES = [System(CLS), ATTENTIVE]
COST = 0.01  # UA on validation that right frames may cost


def train_loss_weights(experiment: Experiment) -> None:
    options, settings = experiment.options, experiment.options.settings
    weighted = weighted_systems(options.weights, settings)
    systems = [STAGE_1, *BASELINES, *weighted]
    found = experiment.train(systems, lambda results: write_report(results, weighted, []), name="loss_weights")
    if options.variants:
        both = [system for system in weighted if system.pooling == "cls" and system.eal_weight and system.fual_weight]
        best = chosen(found, both)
        others = variants(best, settings)
        experiment.train(
            [*systems, *others], lambda results: write_report(results, weighted, others), name="loss_weights"
        )


def chosen(results: RunResults, systems: list[System]) -> System:
    """The lowest EDER on validation, of those that cost next to no UA there; test has no say."""
    baseline = validation_ua(results, System(CLS))
    affordable = [system for system in systems if validation_ua(results, system) >= baseline - COST] or systems
    return min(affordable, key=lambda system: eder(results, system, "validation"))


def eder(results: RunResults, system: System, side: str) -> float:
    counts = tally(results.of(system), side)
    return measured(counts, results.corpus.classes)["eder"] if counts else float("inf")


def write_report(results: RunResults, weighted: list[System], others: list[System]) -> str:
    """Write `loss_weights.md`; what is new in it, for the terminal: the conclusion, or the variants' scores."""
    finished = [system for system in weighted if results.of(system)]
    sections = [f"# How strong EAL and FUAL should be, on {results.corpus.name}", *caveats(results)]
    conclusion = ""
    if not finished:
        sections.append("Nothing is finished yet.")
    elif not any(tally(results.of(system)) for system in finished):
        sections.append("This corpus has no neutral class to splice emotional utterances with: see `ablation.md`.")
    else:
        best = chosen(results, finished)
        conclusion = comparison(results, best)
        sections += [
            conclusion,
            *(["![A splice of two utterances](loss_weights_timeline.png)"] if drawn(results, best) else []),
            table(results, [*BASELINES, *weighted, *others], best),
            "Every system starts from the same stage 1 of its fold and seed as those of the main experiment in this "
            "folder. Chosen (**bold**) is the lowest EDER on *validation* speakers, among the systems with both losses "
            f"or one that lose at most {percent(COST)} UA there, and of equals the first; test had no say. EDER, the "
            "emotion diarization error rate, is the share of time that is wrong in splices of a neutral and an "
            "emotional utterance, *frames right* the share of frames with their utterance's class; in brackets, 95 % "
            "intervals over speakers.",
        ]
    losses = f"margin {results.settings.margin:g}, EAL's and FUAL's weights as the table has them"
    sections += ["## Data", data(results), "## Settings", settings_text(results, losses)]
    write_text(results.output / "loss_weights.md", "\n\n".join(sections) + "\n")
    scores = {system.name: [result.scores.ua for result in results.of(system)] for system in others}
    lines = [f"  {name}: UA {spread(uas)}" for name, uas in scores.items() if uas] if others else [conclusion]
    return "\n".join(["", *lines, f"report: {results.output / 'loss_weights.md'}"])


def drawn(results: RunResults, best: System) -> bool:
    figure = splice_figure(results, best.name)
    if figure is not None:
        save(figure, results.output / "loss_weights_timeline.png")
    return figure is not None


def comparison(results: RunResults, best: System) -> str:
    """The chosen system beside CLS pooling and the paper's weights, on test."""
    classes = results.corpus.classes
    lines = []
    for other in (CLS, PROPOSED):
        baseline = next((system for system in results.systems if system.name == other), None)
        ours, theirs = tally(results.of(best)), baseline and tally(results.of(baseline))
        if baseline is None or baseline == best or not ours or not theirs or ours.speakers != theirs.speakers:
            continue
        gaps = intervals(ours, classes, theirs)
        parts = [
            f"{title} {100 * (measured(ours, classes)[name] - measured(theirs, classes)[name]):+.1f}"
            + (f" [{100 * gaps[name].low:+.1f}, {100 * gaps[name].high:+.1f}]" if name in gaps else "")
            for name, title in (("frames_right", "frames right"), ("eder", "EDER"), ("frame_ua", "frame UA"))
        ]
        ua = [np.mean([result.scores.ua for result in results.of(system)]) for system in (best, baseline)]
        lines.append(f"- minus {other}: UA {100 * (ua[0] - ua[1]):+.1f}, {', '.join(parts)} points")
    if not lines:
        return f"Chosen on validation: **{best.name}**. What it would be compared with is not finished."
    return "\n".join(
        [f"Chosen on validation: **{best.name}**. On test, with 95 % intervals over speakers:", "", *lines]
    )


def table(results: RunResults, systems: list[System], best: System) -> str:
    header = [
        "system",
        "UA, validation",
        "EDER, validation",
        "UA, test",
        "EDER, test",
        "frames right",
        "switches a second",
        *WATCHED,
    ]
    rows = []
    for system in systems:
        found = results.of(system)
        counts = tally(found)
        if not found or not counts:
            continue
        classes = results.corpus.classes
        values, bounds = measured(counts, classes), intervals(counts, classes)
        name = f"**{system.name}**" if system == best else system.name
        rows.append(
            [
                name,
                percent(validation_ua(results, system)),
                percent(eder(results, system, "validation")),
                spread([result.scores.ua for result in found]),
                percent(values["eder"]) + bracket(bounds.get("eder")),
                percent(values["frames_right"]) + bracket(bounds.get("frames_right")),
                f"{values['switches']:.2f}",
                *watched(found),
            ]
        )
    return markdown(header, rows)
