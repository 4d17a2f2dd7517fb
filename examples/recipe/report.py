"""`report.md`: what was run, what came out, and what it means."""

from collections import Counter
from pathlib import Path

from recipe.results import Results, replace
from recipe.two_stage import SYSTEMS

STAND_IN = (
    "**A stand-in.** This is the demo corpus: synthetic speech by espeak-ng. It is a smoke test of the recipe, "
    "not a result; its numbers are not the paper's, and say nothing about real emotional speech."
)
SPEAKER_ENCODER = (
    "The backbone `dvector` is a *speaker* encoder: fit for trying the recipe on a laptop, not for claims about "
    "emotion recognition."
)


def write_report(output: Path, results: Results) -> None:
    replace(output / "report.md", "\n\n".join(sections(results)) + "\n")


def sections(results: Results) -> list[str]:
    corpus, summary = results.corpus, results.summary()
    parts = [f"# Two-stage training on {corpus.name}"]
    if results.stand_in:
        parts.append(STAND_IN)
    if results.backbone == "dvector":
        parts.append(SPEAKER_ENCODER)
    if len(results.finished) < results.planned:
        parts.append(
            f"**Incomplete.** The run ended after {len(results.finished)} of {results.planned} trainings; "
            "the tables below hold the finished ones."
        )
    parts += [
        "## Scores",
        "UA is the mean of the classes' recalls, WA the accuracy, both on test speakers who are in neither training "
        "nor validation; the epoch was chosen on validation UA alone. Mean and standard deviation are over folds; "
        "*pooled* takes the test utterances of all folds together.",
        markdown(
            ["system", "folds", "UA, mean ± std", "WA, mean ± std", "UA, pooled", "WA, pooled"],
            [
                [
                    system,
                    str(s["folds"]),
                    spread(s["ua_mean"], s["ua_std"]),
                    spread(s["wa_mean"], s["wa_std"]),
                    f"{s['pooled'].ua:.1%}",
                    f"{s['pooled'].wa:.1%}",
                ]
                for system, s in summary.items()
            ],
        ),
        f"Chance is {1 / len(corpus.classes):.1%} UA. "
        "One seed: published reruns of such recipes differ by one to two points of UA from seed to seed, so a "
        "difference of that size between systems says nothing.",
        "### Recall of each class, pooled",
        markdown(
            ["system", *corpus.classes],
            [[system, *(f"{r:.1%}" for r in s["pooled"].recalls)] for system, s in summary.items()],
        ),
        "### Each fold",
        markdown(
            ["fold", "system", "UA", "WA", "test utterances", "best epoch", "effective frames", "cosine to anchor",
             "frame variance", "frames that agree"],
            [
                [
                    str(r.fold),
                    r.system,
                    f"{r.scores.ua:.1%}",
                    f"{r.scores.wa:.1%}",
                    str(sum(map(sum, r.scores.confusion))),
                    f"{r.best_epoch} of {len(r.epochs)}",
                    f"{r.diagnostics['effective_frames']:.1f}",
                    f"{r.diagnostics['anchor_cosine']:.2f}",
                    f"{r.diagnostics['frame_variance']:.3f}",
                    f"{r.diagnostics['frame_agreement']:.0%}",
                ]
                for r in sorted(results.finished, key=lambda r: (r.fold, SYSTEMS.index(r.system)))
            ],
        ),
        "The last four columns are framealign's diagnostics on test: over how many frames attention spreads; how "
        "close frames are to their anchor (the CLS, or the utterance where there is none); how different an "
        "utterance's frames still are, where 0 would be collapse; and how many frames are classified as their "
        "utterance is.",
        "## Figures",
        "![Confusion matrices, pooled over folds](confusion_matrix.png)",
        "![t-SNE of utterance vectors](tsne.png)",
        "![Waveform, attention and frame-by-frame class probabilities of one utterance](timeline.png)",
        "## Data",
        data(results),
        "## Settings",
        settings(results),
    ]  # fmt: skip
    return parts


def data(results: Results) -> str:
    corpus = results.corpus
    counts = Counter(u.label for u in corpus.utterances)
    lines = [
        f"{len(corpus.utterances)} utterances of {len({u.speaker for u in corpus.utterances})} speakers: "
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


def settings(results: Results) -> str:
    s = results.settings
    rows = [
        [name, str(stage.epochs), f"{stage.backbone_rate:g}", f"{stage.attention_rate:g}", f"{stage.head_rate:g}"]
        for name, stage in (("stage 1", s.stage1), ("stage 2", s.stage2))
    ]
    return (
        markdown(["", "epochs", "backbone rate", "attention rate", "head rate"], rows)
        + f"\n\nBackbone `{results.backbone}`, front end frozen; AdamW, weight decay {s.weight_decay:g}, batches of "
        f"{s.batch_size}, gradients clipped at {s.clip_norm:g}, warm-up over {s.warmup:.0%} of the steps, seed "
        f"{results.seed}. CLS pooling with {s.num_heads} heads, depth {s.depth}, no dropout; EAL weight "
        f"{s.eal_weight:g}, margin {s.margin:g}; FUAL weight {s.fual_weight:g}. Learning rates, batch size and epochs "
        "are framealign's own: the paper's text does not give them."
    )


def markdown(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def spread(mean: float, deviation: float | None) -> str:
    return f"{mean:.1%}" if deviation is None else f"{mean:.1%} ± {deviation:.1%}"


def terminal_summary(results: Results) -> str:
    """The scores in a few lines."""
    return "\n".join(
        f"  {system:<40} UA {spread(s['ua_mean'], s['ua_std'])}   WA {spread(s['wa_mean'], s['wa_std'])}   "
        f"pooled UA {s['pooled'].ua:.1%} WA {s['pooled'].wa:.1%}"
        for system, s in results.summary().items()
    )
