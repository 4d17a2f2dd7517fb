"""The figures of a run, from the files of its trainings."""

from dataclasses import dataclass

import numpy as np

from recipe.data.audio import read_waveform
from recipe.reporting.figures.confusion import draw_confusion
from recipe.reporting.figures.curves import draw_curves
from recipe.reporting.figures.scores import draw_scores
from recipe.reporting.figures.timeline import FrameOutputs, draw_timeline
from recipe.reporting.figures.tsne import draw_tsne
from recipe.reporting.results import RunResults
from recipe.training.plan import Block
from recipe.training.result import Result
from recipe.training.systems import CLS, PROPOSED


def draw_figures(results: RunResults) -> dict[str, str]:
    """Draw what the finished trainings allow; the files, each with its title."""
    output, classes = results.output, results.corpus.classes
    name = results.corpus.name + (", synthetic stand-in" if results.stand_in else "")
    count = max(len(summary.ua) for summary in results.summaries)
    figures = {"scores.png": "Pooled UA of each system with its 95 % interval"}
    draw_scores(
        output / "scores.png",
        {s.system.name: (s.pooled.ua, *(s.ua_interval or (np.nan, np.nan))) for s in results.summaries},
        1 / len(classes),
        f"{name}, {results.backbone}\ntest utterances of all trainings together, 95 % bootstrap interval",
    )
    figures["confusion_matrix.png"] = "Confusion matrices, pooled over folds and seeds"
    draw_confusion(
        output / "confusion_matrix.png",
        {s.system.name: s.pooled for s in results.summaries},
        classes,
        f"{name}\ntest utterances of up to {count} trainings together, per cent of the true class",
    )
    curves = {s.system.name: [r.epochs for r in results.of(s.system) if r.epochs] for s in results.summaries}
    figures["training_curves.png"] = "Training curves"
    draw_curves(
        output / "training_curves.png",
        {system: found for system, found in curves.items() if found},
        f"{name}, {results.backbone}\nmean and standard deviation over {count} trainings of each system",
    )
    if pair := before_and_after(results):
        figures["tsne.png"] = "t-SNE of utterance vectors before and after the losses"
        where = f"fold {pair.block.fold.number}, seed {pair.block.seed}"
        draw_tsne(
            output / "tsne.png",
            {system: result.output("vectors").numpy() for system, result in pair.systems.items()},
            [classes.index(utterance.label) for utterance in pair.block.fold.test],
            classes,
            f"{name}\nutterance vectors of the test speakers of {where}, coloured by true class",
        )
        figures["timeline.png"] = "Waveform, attention and frame-by-frame class probabilities of one utterance"
        row = representative(pair, classes)
        utterance = pair.block.fold.test[row]
        draw_timeline(
            output / "timeline.png",
            read_waveform(utterance.path).numpy(),
            {system: frame_outputs(result, row) for system, result in pair.systems.items()},
            classes,
            f"{utterance.id}: {utterance.label} ({name}, {where})",
        )
    return figures


@dataclass(frozen=True)
class Pair:
    """One block of the plan, and its systems before and after the losses."""

    block: Block
    systems: dict[str, Result]


def before_and_after(results: RunResults) -> Pair | None:
    """Of the first block that has finished both."""
    for block in results.plan:
        found = {t.system.name: results.finished[t] for t in block.trainings if t in results.finished}
        if CLS in found and PROPOSED in found:
            return Pair(block, {CLS: found[CLS], PROPOSED: found[PROPOSED]})
    return None


def representative(pair: Pair, classes: tuple[str, ...]) -> int:
    """The test utterance of median length among those that are recognised after the losses; else among all."""
    after = list(pair.systems.values())[-1]
    test = pair.block.fold.test
    lengths = after.output("lengths").tolist()
    right = after.probabilities.argmax(axis=1) == [classes.index(utterance.label) for utterance in test]
    rows = [row for row in range(len(test)) if right[row]] or list(range(len(test)))
    return sorted(rows, key=lambda row: lengths[row])[len(rows) // 2]


def frame_outputs(result: Result, row: int) -> FrameOutputs:
    ends = np.cumsum(result.output("lengths").numpy())
    own = slice(ends[row] - int(result.output("lengths")[row]), ends[row])
    return FrameOutputs(result.output("weights")[own].numpy(), result.output("frame_probabilities")[own].numpy())
