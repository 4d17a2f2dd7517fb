"""Emotion over time in the report: how right frames are, by system, and against the baseline."""

from collections.abc import Callable

from recipe.data.splices import CALM
from recipe.reporting.cells import bracket, counted, markdown
from recipe.reporting.over_time import intervals, measured, tally
from recipe.reporting.results import RunResults
from recipe.reporting.significance import Interval

Form = Callable[[float | None, Interval | None], str]


def form_with(spec: str, scale: float = 1.0) -> Form:
    def form(value: float | None, interval: Interval | None) -> str:
        if value is None:
            return "-"
        return f"{scale * value:{spec}}{bracket(interval, spec, scale)}"

    return form


def percent_alone(value: float | None, _: Interval | None) -> str:
    """A part of EDER, whose own interval says enough."""
    return form_with(".1f", 100)(value, None)


# Column of the table: measure, and how it is written
OVER_TIME: dict[str, tuple[str, Form]] = {
    "frames right, %": ("frames_right", form_with(".1f", 100)),
    "EDER, %": ("eder", form_with(".1f", 100)),
    "missed": ("missed", percent_alone),
    "false alarm": ("false_alarm", percent_alone),
    "confusion": ("confused", percent_alone),
    "frame UA, %": ("frame_ua", form_with(".1f", 100)),
    "change, s": ("change_error", form_with(".2f")),
    "switches a second": ("switches", form_with(".2f")),
}
SILENCE: dict[str, tuple[str, Form]] = {"attention on silence": ("attention_to_silence", form_with(".2f"))}
SIGNED: dict[str, tuple[str, Form]] = {
    "frames right, points": ("frames_right", form_with("+.1f", 100)),
    "EDER, points": ("eder", form_with("+.1f", 100)),
    "frame UA, points": ("frame_ua", form_with("+.1f", 100)),
    "change, s": ("change_error", form_with("+.2f")),
    "switches a second": ("switches", form_with("+.2f")),
}


def emotion_over_time(results: RunResults) -> str:
    """How right frames are, and the differences to the baseline; both with intervals over speakers."""
    classes = results.corpus.classes
    counts = {system: found for system in results.systems if (found := tally(results.of(system)))}
    if not counts:
        return ""
    values = {system: measured(found, classes) for system, found in counts.items()}
    spreads = {system: intervals(found, classes) for system, found in counts.items()}
    named = {system.name: system for system in counts}
    any_silence = any("attention_to_silence" in found for found in values.values())
    shown = {**OVER_TIME, **(SILENCE if any_silence else {})}
    rows, changes = [], []
    for system, found in counts.items():
        rows.append([system.name, *(form(values[system].get(n), spreads[system].get(n)) for n, form in shown.values())])
        baseline = named.get(system.baseline or "")
        if baseline is not None and counts[baseline].speakers == found.speakers:
            between = intervals(found, classes, counts[baseline])
            gaps = {name: values[system][name] - values[baseline][name] for name in values[system]}
            changes.append(
                [system.name, baseline.name, *(form(gaps.get(n), between.get(n)) for n, form in SIGNED.values())]
            )
    one = next(iter(counts.values()))
    true_switches = one.splices.sum() / one.seconds.sum()
    trainings = len({(block.seed, block.fold.number) for block in results.plan})
    sections = [
        f"Truth: {int(one.splices.sum() / len({block.seed for block in results.plan}))} splices of test speakers, each "
        "of a neutral and an emotional utterance of one speaker, in both orders, without the silence around them. A "
        "frame's class is the likeliest of its own prediction. *Frames right* is of the corpus's utterances, each of "
        "one emotion; all else is of the splices. EDER is the share of time that is wrong: emotion missed, neutral "
        "speech taken for emotional (false alarm), one emotion taken for another (confusion). *Change* is how far, in "
        "seconds, the likeliest single change of class is from the true one. The truth has "
        f"{true_switches:.2f} switches of class a second."
        + (" In splices, calm counts as neutral." if CALM in classes else "")
        + (
            " *Attention on silence* is that of a silent frame in relation to the mean of all: below 1, it looks at "
            "speech."
            if any_silence
            else ""
        ),
        markdown(["system", *shown], rows),
    ]
    if changes:
        sections += [
            "The same systems minus their baseline:",
            markdown(["system", "baseline", *SIGNED], changes),
        ]
    sections.append(
        f"In brackets, 95 % intervals over the test speakers, {len(one.speakers)} in all, drawn with "
        f"replacement; the models are taken as they are ({counted(trainings, 'training')} of each system)."
        if len(one.speakers) > 1
        else "There is one test speaker, and so no interval over speakers."
    )
    return "\n\n".join(sections)
