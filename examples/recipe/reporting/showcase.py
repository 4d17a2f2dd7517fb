"""The figures of a run, from the files of its trainings."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from recipe.data.audio import read_waveform
from recipe.data.splices import Splice, within
from recipe.reporting.cells import counted
from recipe.reporting.figures.confusion import confusion_figure
from recipe.reporting.figures.curves import curves_figure
from recipe.reporting.figures.scores import scores_figure
from recipe.reporting.figures.style import save
from recipe.reporting.figures.timeline import FrameOutputs, timeline_figure
from recipe.reporting.figures.tsne import tsne_figure
from recipe.reporting.results import RunResults
from recipe.training.plan import Block
from recipe.training.result import Result
from recipe.training.systems import CLS, PROPOSED


def draw_figures(results: RunResults) -> dict[str, str]:
    """Draw what the finished trainings allow; the files, each with its title."""
    titles = {}
    for file, title, figure in figures(results):
        save(figure, results.output / file)
        titles[file] = title
    return titles


def figures(results: RunResults) -> Iterator[tuple[str, str, Figure]]:
    """File, title in the report, and figure."""
    classes, summaries = results.corpus.classes, results.summaries
    name, count = results.corpus.name, max(len(summary.ua) for summary in summaries)
    scores = scores_figure(
        {s.system.name: (s.pooled.ua, *(s.ua_interval or (np.nan, np.nan))) for s in summaries},
        1 / len(classes),
        f"{name}, {results.backbone}\ntest utterances of all trainings together, 95 % bootstrap interval",
    )
    yield "scores.png", "Pooled UA of each system with its 95 % interval", scores
    confusion = confusion_figure(
        {s.system.name: s.pooled for s in summaries},
        classes,
        f"{name}\ntest utterances of all trainings together, per cent of the true class",
    )
    yield "confusion_matrix.png", "Confusion matrices, pooled over folds and seeds", confusion
    spread = "mean and standard deviation over " if count > 1 else ""
    epochs = {s.system.name: [r.epochs for r in results.of(s.system) if r.epochs] for s in summaries}
    curves = curves_figure(
        {system: found for system, found in epochs.items() if found},
        f"{name}, {results.backbone}\n{spread}{counted(count, 'training')} of each system",
    )
    yield "training_curves.png", "Training curves", curves
    pair = before_and_after(results)
    if pair is None:
        return
    test, where = pair.block.fold.test, f"fold {pair.block.fold.number}, seed {pair.block.seed}"
    tsne = tsne_figure(
        {system: result.output("vectors").numpy() for system, result in pair.systems.items()},
        [classes.index(utterance.label) for utterance in test],
        classes,
        f"{name}\nutterance vectors of the test speakers of {where}, coloured by true class",
    )
    yield "tsne.png", "t-SNE of utterance vectors before and after the losses", tsne
    row = representative(pair, classes)
    timeline = timeline_figure(
        read_waveform(test[row].path).numpy(),
        {system: frame_outputs(result.output, row) for system, result in pair.systems.items()},
        classes,
        f"{test[row].id}: {test[row].label} ({name}, {where})",
    )
    yield "timeline.png", "Waveform, attention and frame-by-frame class probabilities of one utterance", timeline
    if splice := splice_figure(results, PROPOSED):
        yield "timeline_splice.png", "A splice of two utterances: the truth, and what each frame says", splice


def splice_figure(results: RunResults, after: str) -> Figure | None:
    """CLS pooling and the system `after` on one test splice, where both have finished and there is one."""
    pair = before_and_after(results, after)
    spliced = within(results.splices, pair.block.fold.test) if pair else []
    if pair is None or not spliced:
        return None
    classes = results.corpus.classes
    row = median_splice(spliced, pair.systems[after], classes)
    splice = spliced[row]
    return timeline_figure(
        splice.waveform().numpy(),
        {system: frame_outputs(result.output_of_splices, row) for system, result in pair.systems.items()},
        classes,
        f"{splice.first.id} and {splice.second.id} in one\n({results.corpus.name}, fold {pair.block.fold.number}, "
        f"seed {pair.block.seed})",
        [(splice.first.label, splice.change), (splice.second.label, splice.seconds)],
    )


@dataclass(frozen=True)
class Pair:
    """One block of the plan, and its systems before and after the losses."""

    block: Block
    systems: dict[str, Result]


def before_and_after(results: RunResults, after: str = PROPOSED) -> Pair | None:
    """Of the first block that has finished both."""
    for block in results.plan:
        found = {t.system.name: results.finished[t] for t in block.trainings if t in results.finished}
        if CLS in found and after in found:
            return Pair(block, {CLS: found[CLS], after: found[after]})
    return None


def representative(pair: Pair, classes: tuple[str, ...]) -> int:
    """The test utterance of median length among those that are recognised after the losses; else among all."""
    after = list(pair.systems.values())[-1]
    test = pair.block.fold.test
    lengths = after.output("lengths").tolist()
    right = after.probabilities.argmax(axis=1) == [classes.index(utterance.label) for utterance in test]
    rows = [row for row in range(len(test)) if right[row]] or list(range(len(test)))
    return sorted(rows, key=lambda row: lengths[row])[len(rows) // 2]


def median_splice(spliced: Sequence[Splice], result: Result, classes: Sequence[str]) -> int:
    """The one of median error: half of them look better."""
    wrong = []
    for row, splice in enumerate(spliced):
        predicted = frame_outputs(result.output_of_splices, row).probabilities.argmax(axis=1)
        wrong.append(np.mean([classes[label] for label in predicted] != np.array(splice.truth(len(predicted)))))
    return int(np.argsort(wrong, kind="stable")[len(wrong) // 2])


def frame_outputs(output: Callable[[str], Tensor], row: int) -> FrameOutputs:
    lengths = output("lengths").numpy()
    end = lengths[: row + 1].sum()
    own = slice(end - lengths[row], end)
    return FrameOutputs(output("weights")[own].numpy(), output("frame_probabilities")[own].numpy())
