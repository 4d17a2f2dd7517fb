"""`report.md`: what was run, what came out, and what it means."""

from collections import Counter

import numpy as np

from recipe.files import write_text
from recipe.reporting.cells import bracket, counted, markdown, percent, spread
from recipe.reporting.over_time_table import emotion_over_time
from recipe.reporting.published import PUBLISHED
from recipe.reporting.results import Comparison, RunResults
from recipe.reporting.showcase import draw_figures
from recipe.reporting.significance import smallest_p
from recipe.training.systems import CLS, PROPOSED

STAND_IN = (
    "**A stand-in.** This is the demo corpus: synthetic speech by espeak-ng. It is a smoke test of the recipe, "
    "not a result; its numbers are not the paper's, and say nothing about real emotional speech."
)
REAL_EXPERIMENT = "python examples/iemocap_two_stage.py --data PATH/TO/IEMOCAP_full_release"
OWN_SPEECH = "python examples/cross_dataset.py --corpus manifest --data my.csv --backbone dvector"
LEVEL = 0.05  # of significance


def write_report(results: RunResults) -> str:
    """Write the report and its figures; its main table and what comes next, for the terminal."""
    figures, steps = draw_figures(results), next_steps(results)
    sections = [
        f"# Two-stage training on {results.corpus.name}",
        *caveats(results),
        "## Scores",
        scores(results),
        "## Which differences are real",
        differences(results),
        "## What the losses did",
        diagnostics(results),
        *(["## Emotion over time", timelines] if (timelines := emotion_over_time(results)) else []),
        *(["## Beside published numbers", beside] if (beside := published(results)) else []),
        "## Recall of each class, pooled",
        recalls(results),
        "## UA of each fold, mean over seeds",
        fold_scores(results),
        "## Figures",
        *(f"![{title}]({file})" for file, title in figures.items()),
        "## Data",
        data(results),
        "## Settings",
        settings_text(results),
        "## What next",
        "\n".join(f"- {step}" for step in steps),
    ]
    report = results.output / "report.md"
    write_text(report, "\n\n".join(section for section in sections if section) + "\n")
    files = [f"report: {report}", f"figures, beside it: {', '.join(figures)}"]
    return "\n".join([terminal_summary(results), *files, *(f"next: {step.replace('`', '')}" for step in steps)])


def next_steps(results: RunResults) -> list[str]:
    """What to run and to read now."""
    steps = []
    if len(results.finished) < len(results.trainings):
        steps.append("The same command goes on with the trainings that are not finished.")
    if results.stand_in:
        if len(results.plan) == 1:
            steps.append("All folds and systems of the demo: `python examples/iemocap_two_stage.py`")
        steps += [
            f"Your own speech, listed in a CSV with the columns path, label and speaker: `{OWN_SPEECH}`",
            f"The real experiment, first with `--dry_run`, which checks the corpus: `{REAL_EXPERIMENT}`",
        ]
    else:
        if smallest_adjusted_p(results) >= LEVEL:
            steps.append(
                "More seeds, without which no difference can be significant: the same command with `--seeds 0 1 2`, "
                "for one. What is finished is kept."
            )
        steps.append(
            "Other margins and weights of the losses, on the same stage 1: `examples/ablation.py` and "
            "`examples/loss_weights.py`, with the corpus and backbone of this run."
        )
    return [*steps, "What every table and figure means: `docs/recipe/report.md`"]


def caveats(results: RunResults) -> list[str]:
    found = []
    if results.stand_in:
        found.append(STAND_IN)
    if results.backbone_caveat:
        found.append(results.backbone_caveat)
    found += [f"**Not to be believed.** {caveat}" for caveat in results.corpus.caveats]
    if len(results.finished) < len(results.trainings):
        found.append(
            f"**Incomplete.** The run ended after {len(results.finished)} of {len(results.trainings)} trainings; the "
            "tables below hold the finished ones. The same command goes on with the others."
        )
    return found


def scores(results: RunResults) -> str:
    seeds = sorted({result.training.seed for result in results.results})
    folds = sorted({result.training.fold.number for result in results.results})
    table = markdown(
        ["system", "trainings", "UA, mean ± std", "WA, mean ± std", "UA, pooled [95 %]", "WA, pooled [95 %]"],
        [
            [
                s.system.name,
                str(len(s.ua)),
                spread(s.ua),
                spread(s.wa),
                percent(s.pooled.ua) + bracket(s.ua_interval),
                percent(s.pooled.wa) + bracket(s.wa_interval),
            ]
            for s in results.summaries
        ],
    )
    return "\n\n".join(
        [
            "UA is the mean of the classes' recalls, WA the accuracy, both on test speakers who are in neither "
            "training nor validation; the epoch was chosen on validation UA alone. "
            f"Folds that were run: {', '.join(map(str, folds))}; seeds: {', '.join(map(str, seeds))}. Every system of "
            "stage 2 starts from the same stage 1 of its fold and seed.",
            table,
            "Mean and standard deviation are over trainings, one for each fold and seed; *pooled* takes the test "
            "utterances of all trainings together. The brackets hold a bootstrap over the pooled utterances: how the "
            "scores of these trained models would move with other utterances of the same speakers. With other "
            f"speakers they move by more, as the standard deviation shows. Chance is "
            f"{percent(1 / len(results.corpus.classes))} UA.",
        ]
    )


def differences(results: RunResults) -> str:
    comparisons = results.comparisons
    if not comparisons:
        return "No system and its baseline have finished all folds of a seed yet, so nothing can be compared."
    rows = [
        [
            c.system.name,
            c.baseline,
            f"{100 * c.difference:+.1f}",
            f"[{100 * c.interval[0]:+.1f}, {100 * c.interval[1]:+.1f}]",
            f"{c.p:.3f}",
            f"{c.adjusted_p:.3f}",
            f"{c.folds_p:.3f}",
            verdict(c),
        ]
        for c in comparisons
    ]
    real = [c for c in comparisons if c.adjusted_p < LEVEL]
    trainings, folds = max(c.trainings for c in comparisons), len({block.fold.number for block in results.plan})
    if (smallest := smallest_adjusted_p(results)) >= LEVEL:
        counts = f"{counted(trainings, 'training')} of a system and {counted(len(comparisons), 'comparison')}"
        conclusion = (
            f"**With {counts} nothing can be significant here**: the smallest adjusted p that they can give is "
            f"{smallest:.2f}. Run more `--seeds`."
        )
    elif real:
        listed = ", ".join(f"{c.system.name} ({verdict(c)})" for c in real)
        conclusion = f"Significant at {LEVEL:g}: {listed}. The others are not."
    else:
        conclusion = f"**None of the differences is significant** at {LEVEL:g}: they may be the noise of training."
    return "\n\n".join(
        [
            conclusion,
            markdown(
                ["system", "baseline", "UA, points", "95 %, these models", "p", "p, Holm", "p over folds", ""], rows
            ),
            "UA of the system minus UA of its baseline, mean over trainings with the same fold, seed, stage 1 and "
            "order of batches. p is that of a paired test over trainings (signs flipped at random), since the "
            "utterances of one model share the noise of its training; Holm's adjusts it for the number of "
            "comparisons. p over folds takes one difference for each fold, the mean over seeds: that is the one that "
            f"speaks of other speakers, and with {counted(folds, 'fold')} it cannot be below {smallest_p(folds):.3f}.",
        ]
    )


def smallest_adjusted_p(results: RunResults) -> float:
    """The smallest p after Holm that the comparisons of a run can give, however large their differences are."""
    comparisons = results.comparisons
    trainings = max((c.trainings for c in comparisons), default=1)
    return min(1.0, smallest_p(trainings) * len(comparisons))


def verdict(comparison: Comparison) -> str:
    if comparison.adjusted_p >= LEVEL:
        return "not significant"
    return "better" if comparison.difference > 0 else "worse"


def diagnostics(results: RunResults) -> str:
    names = {
        "effective_frames": ("effective frames", "{:.1f}"),
        "attention_entropy": ("attention entropy", "{:.2f}"),
        "anchor_cosine": ("cosine to anchor", "{:.3f}"),
        "frame_variance": ("frame variance", "{:.3f}"),
        "frame_agreement": ("frames that agree", "{:.1%}"),
    }
    rows = []
    for summary in results.summaries:
        found = [result.diagnostics for result in results.of(summary.system)]
        means = {name: np.mean([d[name] for d in found]) if name in found[0] else None for name in names}
        if any(value is not None for value in means.values()):
            cells = ["-" if means[name] is None else form.format(means[name]) for name, (_, form) in names.items()]
            rows.append([summary.system.name, *cells])
    return "\n\n".join(
        [
            markdown(["system", *(title for title, _ in names.values())], rows),
            "framealign's diagnostics on test, means over trainings: over how many frames attention spreads, and its "
            "entropy in nats; how close frames are to their anchor (the CLS, or the utterance where there is none), "
            "which EAL raises; how different an utterance's frames still are, where 0 would be collapse; and how many "
            "frames are classified as their utterance is, which FUAL raises.",
        ]
    )


def published(results: RunResults) -> str:
    """The paper's Tables 6 and 7: baseline and proposed system beside what others state, with how they measured."""
    known = PUBLISHED.get(results.corpus.name, ())
    rows = [[p.name, p.ua, p.wa, p.source, p.protocol, p.comparable] for p in known]
    for summary in results.summaries:
        if summary.system.name in (CLS, PROPOSED):
            rows.append(
                [
                    f"**{summary.system.name}, this run**",
                    f"{100 * np.mean(summary.ua):.1f}",
                    f"{100 * np.mean(summary.wa):.1f}",
                    "the table of scores above",
                    f"`{results.backbone}`, {len(results.corpus.classes)} classes; mean over "
                    f"{counted(len(summary.ua), 'training')}; unseen speakers, epoch chosen on validation",
                    "",
                ]
            )
    return markdown(["", "UA, %", "WA, %", "source", "protocol", "comparable?"], rows) if known else ""


def recalls(results: RunResults) -> str:
    return markdown(
        ["system", *results.corpus.classes],
        [[s.system.name, *(percent(recall) for recall in s.pooled.recalls)] for s in results.summaries],
    )


def fold_scores(results: RunResults) -> str:
    numbers = sorted({block.fold.number for block in results.plan})
    tested = {block.fold.number: len(block.fold.test) for block in results.plan}
    rows = []
    for number in numbers:
        cells = []
        for summary in results.summaries:
            uas = [r.scores.ua for r in results.of(summary.system) if r.training.fold.number == number]
            cells.append(spread(uas) if uas else "-")
        rows.append([str(number), str(tested[number]), *cells])
    return markdown(["fold", "test utterances", *(s.system.name for s in results.summaries)], rows)


def data(results: RunResults) -> str:
    corpus = results.corpus
    counts = Counter(u.label for u in corpus.utterances)
    lines = [
        f"{len(corpus.utterances)} utterances of {len({u.speaker for u in corpus.utterances})} speakers were used: "
        + ", ".join(f"{counts[name]} {name}" for name in corpus.classes)
        + ". The speakers and utterances of each fold are in `folds.json`."
    ]
    lines += corpus.notes
    if corpus.skipped:
        count = len(corpus.skipped)
        lines.append("1 file was skipped:" if count == 1 else f"{count} files were skipped:")
        reasons = Counter(s.reason for s in corpus.skipped)
        example = {s.reason: s.path.name for s in reversed(corpus.skipped)}
        lines.append("\n".join(f"- {n} x {reason} (`{example[reason]}`)" for reason, n in reasons.most_common()))
        lines.append("Every one is named in `results.json`.")
    else:
        lines.append("No file was skipped.")
    return "\n\n".join(lines)


def settings_text(results: RunResults, losses: str = "") -> str:
    """The hyperparameters; `losses` are the margins and weights of an experiment that tries several."""
    s, config = results.settings, results.file("config.yaml").name
    losses = losses or f"EAL weight {s.eal_weight:g}, margin {s.margin:g}; FUAL weight {s.fual_weight:g}"
    rows = [
        [name, str(stage.epochs), f"{stage.backbone_rate:g}", f"{stage.attention_rate:g}", f"{stage.head_rate:g}"]
        for name, stage in (("stage 1", s.stage1), ("stage 2", s.stage2))
    ]
    return (
        markdown(["", "epochs", "backbone rate", "attention rate", "head rate"], rows)
        + f"\n\nBackbone `{results.backbone}`, front end frozen; AdamW, weight decay {s.weight_decay:g}, steps of "
        f"{s.batch_size} utterances, gradients clipped at {s.clip_norm:g}, warm-up over {s.warmup:.0%} of the steps; "
        f"{'float32' if results.precision == 'no' else results.precision}. CLS pooling with {s.num_heads} heads, depth "
        f"{s.depth}, no dropout; {losses}. "
        "Learning rates, batch size and epochs are framealign's own: the paper's text does not give them. All of it "
        f"is in `{config}`: the same script with `--config {config} --output ANOTHER` runs it again."
    )


def terminal_summary(results: RunResults) -> str:
    """The scores, and what they prove, in a few lines."""
    lines = [
        f"\nmean ± standard deviation over folds and seeds, {len(results.finished)} of {len(results.trainings)} "
        f"trainings, {results.corpus.name}:"
    ]
    against = {c.system.name: c for c in results.comparisons}
    for s in results.summaries:
        line = f"  {s.system.name:<32} UA {spread(s.ua):<15} WA {spread(s.wa):<15}"
        if c := against.get(s.system.name):
            line += f" {100 * c.difference:+.1f} points on {c.baseline}, {verdict(c)} (p, Holm {c.adjusted_p:.2f})"
        lines.append(line.rstrip())
    return "\n".join(lines)
