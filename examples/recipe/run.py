"""A run from end to end: backbone, corpus, folds, features, training, report."""

import argparse
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from recipe.audio import check_audio, usable_audio
from recipe.backbones import Backbone, load_backbone
from recipe.corpora import Corpus
from recipe.errors import RecipeError
from recipe.folds import Fold, fold_table, write_folds
from recipe.progress import Progress
from recipe.report import terminal_summary, write_report
from recipe.results import Results
from recipe.settings import Settings
from recipe.showcase import Showcase
from recipe.two_stage import SYSTEMS, train_two_stages


def run(
    arguments: argparse.Namespace,
    output: Path,
    read: Callable[[], Corpus],
    make_folds: Callable[[Corpus], list[Fold]],
    settings: Settings,
    stand_in: bool = False,
) -> None:
    if arguments.dry_run:
        dry_run(arguments, output, read, make_folds)
        return
    if arguments.epochs:
        settings = with_epochs(settings, *arguments.epochs)
    accelerator = Accelerator()
    if accelerator.num_processes > 1:
        raise RecipeError("the recipe runs in one process; start it with `python`, not with a launcher.")
    random.seed(arguments.seed)
    np.random.seed(arguments.seed)  # noqa: NPY002  transformers draws from it
    torch.manual_seed(arguments.seed)
    # The backbone comes first: a wrong name should not cost the reading of a corpus
    backbone = load_backbone(arguments.backbone).to(accelerator.device)
    size = sum(p.numel() for p in backbone.parameters()) / 1e6
    print(f"backbone {arguments.backbone}: {size:.1f} M parameters, on {accelerator.device}", flush=True)

    corpus = read()
    print(f"corpus {corpus.name}: {len(corpus.utterances)} utterances, classes {', '.join(corpus.classes)}", flush=True)
    chosen(make_folds(corpus), arguments.folds)  # refused, if they are, before the audio is read
    output.mkdir(parents=True, exist_ok=True)
    features = frozen_features(backbone, corpus, accelerator)
    folds = chosen(make_folds(corpus), arguments.folds)  # without the utterances whose audio cannot be used
    announce(corpus, folds)
    write_folds(output / "folds.json", folds, corpus.classes)

    results = Results(corpus, arguments.backbone, settings, arguments.seed, len(folds) * len(SYSTEMS), stand_in)
    showcase = Showcase(features)
    try:
        train(folds, backbone, features, results, showcase, output, accelerator)
    finally:  # an interrupted run reports what it had finished
        if results.finished:
            showcase.draw(output, results)
            write_report(output, results)
            print(f"\nmean ± standard deviation over folds, {len(results.finished)} of {results.planned} trainings:")
            print(terminal_summary(results))
            print(f"report: {output / 'report.md'}", flush=True)


def train(
    folds: list[Fold],
    backbone: Backbone,
    features: dict[str, Tensor],
    results: Results,
    showcase: Showcase,
    output: Path,
    accelerator: Accelerator,
) -> None:
    settings, classes = results.settings, results.corpus.classes
    epochs = settings.stage1.epochs + settings.stage2.epochs
    steps = sum(-(-len(fold.train) // settings.batch_size) * epochs for fold in folds)
    with Progress(steps) as progress:
        for fold in folds:
            seed = 1000 * results.seed + 10 * fold.number
            for trained in train_two_stages(fold, backbone, features, classes, settings, seed, accelerator, progress):
                result = results.add(trained)
                showcase.add(trained, classes, accelerator)
                results.write(output)
                progress.say(
                    f"fold {fold.number}, {trained.system}: test UA {result.scores.ua:.3f}, WA {result.scores.wa:.3f} "
                    f"(epoch {result.best_epoch} of {len(result.epochs)}, chosen on validation)"
                )


def frozen_features(backbone: Backbone, corpus: Corpus, accelerator: Accelerator) -> dict[str, Tensor]:
    """The front end's features of every usable utterance; the others are in `corpus.skipped` afterwards."""
    return {
        utterance.id: backbone.features(waveform.to(accelerator.device)).cpu()
        for utterance, waveform in usable_audio(corpus)
    }


def dry_run(
    arguments: argparse.Namespace,
    output: Path,
    read: Callable[[], Corpus],
    make_folds: Callable[[Corpus], list[Fold]],
) -> None:
    corpus = check_audio(read())
    folds = chosen(make_folds(corpus), arguments.folds)
    announce(corpus, folds)
    output.mkdir(parents=True, exist_ok=True)
    write_folds(output / "folds.json", folds, corpus.classes)
    print(f"folds: {output / 'folds.json'}\ndry run: nothing was trained")


def announce(corpus: Corpus, folds: list[Fold]) -> None:
    for note in corpus.notes:
        print(f"note: {note}")
    for skipped in corpus.skipped[:10]:
        print(f"skipped: {skipped.path}: {skipped.reason}")
    if len(corpus.skipped) > 10:
        print(f"skipped: {len(corpus.skipped) - 10} more files")
    print(fold_table(folds, corpus.classes), flush=True)


def with_epochs(settings: Settings, stage1: int, stage2: int) -> Settings:
    if min(stage1, stage2) < 1:
        raise RecipeError(f"--epochs {stage1} {stage2}: each stage needs at least 1.")
    return replace(
        settings, stage1=replace(settings.stage1, epochs=stage1), stage2=replace(settings.stage2, epochs=stage2)
    )


def chosen(folds: list[Fold], numbers: list[int] | None) -> list[Fold]:
    if numbers is None:
        return folds
    known = [fold.number for fold in folds]
    if unknown := sorted(set(numbers) - set(known)):
        raise RecipeError(f"--folds {' '.join(map(str, unknown))}: there are folds {', '.join(map(str, known))}.")
    return [fold for fold in folds if fold.number in numbers]
