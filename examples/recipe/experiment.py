"""An experiment from end to end: backbone, corpus, folds, features, trainings. Goes on where one was stopped."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import Tensor

from recipe.command_line import Options
from recipe.data import demo
from recipe.data.audio import SAMPLE_RATE, read_waveform, seconds, sound_digest, usable_audio
from recipe.data.copies import tell_copies
from recipe.data.corpora import corpora, read_corpus
from recipe.data.corpus import Corpus, Fold, Utterance
from recipe.data.folds import fold_digest, fold_table, split_folds, with_only, write_folds
from recipe.data.splices import Splice, speech_of, splices
from recipe.data.transfer import joined
from recipe.errors import RecipeError
from recipe.features.backbone import Backbone
from recipe.features.backbones import load_backbone
from recipe.features.batches import check_budget
from recipe.features.cache import FeatureCache, cached_features, perturbed_features, splice_features, state_digest
from recipe.hardware import check_processes, dynamo, equipment, resolved_precision
from recipe.models.card import CardWriter
from recipe.models.folder import Description, write_model
from recipe.output_folder import claim, make_folder
from recipe.progress_bar import progress_bar
from recipe.reporting.cells import counted, percent
from recipe.reporting.results import RunResults
from recipe.training.allocator import keep_pages
from recipe.training.epoch import steps_an_epoch
from recipe.training.model import EmotionModel
from recipe.training.plan import Block, Training, make_plan
from recipe.training.predict import Predictions
from recipe.training.progress import Progress
from recipe.training.result import forget_damaged
from recipe.training.systems import System
from recipe.training.two_stage import KeepModel, TwoStages

DEMO = Path("runs/demo-corpus")


MakeFolds = Callable[[Options, Corpus], list[Fold]]


def folds_of(options: Options, corpus: Corpus) -> list[Fold]:
    """The corpus's own, or the one of two that are joined."""
    return split_folds(corpus) if options.train_corpus is not None else corpora()[options.corpus].folds(corpus)


def run(options: Options, train: Callable[["Experiment"], object], make_folds: MakeFolds = folds_of) -> None:
    """What the scripts do: `train`, or with `--dry_run` only look."""
    if options.dry_run:
        dry_run(options, make_folds)
    else:
        train(prepare(options, make_folds))


def prepare(options: Options, make_folds: MakeFolds = folds_of) -> "Experiment":
    """All that trainings need, in an output folder that is theirs."""
    keep_pages()
    # The backbone comes first: a wrong name should not cost the reading of a corpus
    backbone = load_backbone(options.backbone, options.settings)
    check_heads(options, backbone)
    precision = resolved_precision(options.precision, backbone)
    accelerator = Accelerator(mixed_precision=precision, dynamo_plugin=dynamo(options.compile))
    check_processes(accelerator)
    announce(accelerator, equipment(options, backbone, accelerator))
    weights = state_digest(backbone.state_dict()).hexdigest()

    every_utterance = read(options)
    announce(accelerator, size(every_utterance))
    every_fold = make_folds(options, every_utterance)
    chosen(every_fold, options.folds)  # refused, if they are, before the audio is read
    backbone = backbone.to(accelerator.device)
    main = accelerator.is_main_process
    with accelerator.main_process_first():
        cache = FeatureCache(options.cache, backbone, accelerator.device, getattr(torch, options.cache_dtype))
        durations = {utterance.id: seconds(utterance.path) for utterance in every_utterance.utterances}
        announce(accelerator, cache_size(sum(durations.values()), cache, options.settings.speeds))
        found = cached_features(every_utterance, cache, main)
        corpus = every_utterance.with_only(found.by_id, found.skipped)
        perturbed = perturbed_features(corpus, options.settings.speeds[1:], cache, main)
    slowest = min(options.settings.speeds)
    at_slowest = {u.id: perturbed.get((u.id, slowest), found.by_id[u.id]) for u in corpus.utterances}
    check_budget(corpus.utterances, at_slowest, options.settings.frame_budget)
    every_fold = with_only(every_fold, found.by_id, corpus.classes)
    tell_copies(corpus, every_fold, found.sounds)
    folds = chosen(every_fold, options.folds)
    announce(accelerator, overview(corpus, folds))
    if main:
        claim(
            options.output,
            {  # what all trainings of an output folder share
                "corpus": corpus.name,
                "classes": list(corpus.classes),
                "content": found.content,
                "folds": fold_digest(every_fold, corpus.classes),
                "backbone": options.backbone,
                "weights": weights,
                "precision": precision,
                "cache_dtype": options.cache_dtype,
                "compile": options.compile,
                # but for what changes no more than rounding, and may have to when memory is short
                "settings": {k: v for k, v in asdict(options.settings).items() if k != "frame_budget"},
            },
        )
        write_folds(options.output / "folds.json", folds, corpus.classes)
    with accelerator.main_process_first():
        spliced = splices_of(folds, main)
        features = {**found.by_id, **perturbed, **splice_features(spliced, found.contents, cache, main)}
    return Experiment(options, accelerator, precision, backbone, corpus, folds, features, spliced, durations)


@dataclass(frozen=True)
class Experiment:
    """A corpus, its folds, its features and a backbone, ready to train systems."""

    options: Options
    accelerator: Accelerator
    precision: str
    backbone: Backbone
    corpus: Corpus
    folds: list[Fold]
    features: Mapping[Any, Tensor]  # by the ids of utterances and splices; at other speeds by id and speed
    splices: list[Splice]  # of the folds' validation and test utterances
    durations: Mapping[str, float]  # seconds, by utterance

    def train(self, systems: list[System], report: Callable[[RunResults], str], name: str = "results") -> RunResults:
        """Train what is not finished in the output folder yet; what came out of all.

        Args:
            systems: Stage 1, then the others.
            report: Writes the report and figures into the folder, also of an interrupted run; the lines for the
                terminal.
            name: Of the files with the data: `results.json`, for one.
        """
        options, settings = self.options, self.options.settings
        plan = make_plan(options.seeds, self.folds, systems, options.output)
        results = RunResults(
            self.corpus,
            options.output,
            options.backbone,
            settings,
            plan,
            name,
            self.precision,
            stand_in=options.data is None,
            backbone_caveat=self.backbone.caveat,
            splices=self.splices,
        )
        main = self.accelerator.is_main_process
        if main:
            options.write(results.file("config.yaml"))
        try:
            for block, progress in self.trained(plan, self.keep_in_its_folder if options.save_models else None):
                if main:
                    results.write()
                    progress.say(block_table(block, results))
        finally:  # an interrupted run reports what it had finished
            results.read()
            if results.finished and main:
                results.write()
                print(report(results), flush=True)
        return results

    def trained(self, plan: list[Block], keep: KeepModel | None) -> Iterator[tuple[Block, Progress]]:
        """Train what is not finished: each block with something new, and the bar, to write lines above it."""
        options, settings = self.options, self.options.settings
        steps = {
            training: steps_an_epoch(len(block.fold.train), settings) * training.system.epochs(settings)
            for block in plan
            for training in block.trainings
        }
        if self.accelerator.is_main_process:
            for note in forget_damaged(steps):
                print(f"note: {note}", flush=True)
        self.accelerator.wait_for_everyone()
        finished = self.agreed([training for training in steps if training.finished], list(steps))
        if finished:
            announce(
                self.accelerator,
                f"{len(finished)} of {len(steps)} trainings are finished in {options.output}; going on",
            )
        done = sum(steps[training] for training in finished)
        with Progress(sum(steps.values()), done, disable=not self.accelerator.is_main_process) as progress:
            stages = TwoStages(
                self.backbone,
                self.features,
                self.splices,
                self.corpus.classes,
                settings,
                self.accelerator,
                progress,
                keep,
            )
            for block in plan:
                if list(stages.train(block, finished)):
                    yield block, progress

    def keep_in_its_folder(self, training: Training, model: EmotionModel, found: Predictions) -> None:
        self.keep(training.folder / "model", training, model, found)

    def keep(self, folder: Path, training: Training, model: EmotionModel, found: Predictions) -> None:
        """A trained model for predict.py, with its card."""
        options, settings = self.options, self.options.settings
        lengths = [self.durations[utterance.id] for utterance in training.fold.train]
        description = Description(
            training.system.name,
            # where a local copy lies is nobody's business
            Path(options.backbone).resolve().name if Path(options.backbone).exists() else options.backbone,
            training.system.pooling,
            self.corpus.classes,
            settings.frozen_layers,
            settings.layers,
            settings.num_heads,
            settings.depth,
            # Whisper's positions reach no further; a window shorter than 2 s is no utterance
            longest=float(np.clip(max(lengths), 2, 30)),
            typical=float(np.clip(np.quantile(lengths, 0.9), 2, 30)),
        )
        writer = CardWriter(self.corpus, settings, self.precision, options.data is None, self.backbone.caveat)
        write_model(folder, model, description, writer.write(training, description, found))

    def agreed(self, finished: list[Training], everything: list[Training]) -> set[Training]:
        """What the main process found finished: all must skip the same, whatever they see on a shared disk."""
        flags = broadcast_object_list([training in finished for training in everything])
        return {training for training, flag in zip(everything, flags, strict=True) if flag}


def announce(accelerator: Accelerator, text: str) -> None:
    if accelerator.is_main_process:
        print(text, flush=True)


def size(corpus: Corpus) -> str:
    return f"corpus {corpus.name}: {len(corpus.utterances)} utterances found, classes {', '.join(corpus.classes)}"


def read(options: Options) -> Corpus:
    """The corpus that the options ask for, or the two that they join."""
    if options.data is None:
        corpus = read_corpus(options.corpus, demo.make_demo_corpus(DEMO), options.classes)
        return replace(corpus, name=demo.NAME, notes=[])  # how much of IEMOCAP it has says nothing
    corpus = read_corpus(options.corpus, options.data, options.classes)
    if options.train_corpus is None or options.train_data is None:
        return corpus
    return joined(read_corpus(options.train_corpus, options.train_data, options.classes), corpus)


def cache_size(own: float, cache: FeatureCache, speeds: Sequence[float]) -> str:
    """What the features of so many seconds will take, said before they are made; splices take about as much again."""
    total = sum(own / speed for speed in speeds)
    a_second = cache.kept(cache.backbone.features(torch.randn(SAMPLE_RATE, device=cache.device))).nbytes
    kind = str(cache.dtype).removeprefix("torch.")
    return (
        f"features: {total / 60:.0f} minutes of audio take {total * a_second / 1e6:.0f} MB ({kind}) in {cache.folder}"
    )


def splices_of(folds: list[Fold], progress: bool) -> list[Splice]:
    """Of all that are validated or tested on, each once."""
    held_out = {u.id: u for fold in folds for u in (*fold.validation, *fold.test)}
    shown = progress_bar(desc="finding speech", unit="file", disable=not progress)
    speech: dict[str, slice] = {}

    def speech_in(utterance: Utterance) -> slice:
        if utterance.id not in speech:
            speech[utterance.id] = speech_of(read_waveform(utterance.path))
            shown.update()
        return speech[utterance.id]

    with shown:
        return splices(list(held_out.values()), speech_in)


def check_heads(options: Options, backbone: Backbone) -> None:
    if backbone.dim % options.settings.num_heads:
        raise RecipeError(
            f"--num_heads {options.settings.num_heads}: must divide {backbone.dim}, the width of {options.backbone}'s "
            "frames."
        )


def block_table(block: Block, results: RunResults) -> str:
    """The scores of all systems on one fold, for the terminal."""
    lines = [f"seed {block.seed}, fold {block.fold.number}, {len(block.fold.test)} test utterances:"]
    for training in block.trainings:
        if result := results.finished.get(training):
            epoch = f"   epoch {result.best_epoch} of {len(result.epochs)}" if result.best_epoch else ""
            scores = f"UA {percent(result.scores.ua):>6}   WA {percent(result.scores.wa):>6}"
            lines.append(f"  {training.system.name:<32} {scores}{epoch}")
    return "\n".join(lines)


def dry_run(options: Options, make_folds: MakeFolds) -> None:
    corpus = read(options)
    print(size(corpus), flush=True)
    every_fold = make_folds(options, corpus)
    chosen(every_fold, options.folds)  # refused, if they are, before the audio is read
    sounds, skipped = usable_audio(corpus, sound_digest)
    corpus, every_fold = corpus.with_only(sounds, skipped), with_only(every_fold, sounds, corpus.classes)
    tell_copies(corpus, every_fold, sounds)
    folds = chosen(every_fold, options.folds)
    print(overview(corpus, folds))
    if not (options.output / "setup.json").exists():  # an earlier run's stay
        make_folder(options.output)
        write_folds(options.output / "folds.json", folds, corpus.classes)
        print(f"folds: {options.output / 'folds.json'}")
    print("dry run: nothing was trained")


def overview(corpus: Corpus, folds: list[Fold]) -> str:
    lines = [f"warning: {caveat}" for caveat in corpus.caveats]
    lines += [f"note: {note}" for note in corpus.notes]
    lines += [f"skipped: {skipped.path}: {skipped.reason}" for skipped in corpus.skipped[:10]]
    if len(corpus.skipped) > 10:
        lines.append(f"skipped: {counted(len(corpus.skipped) - 10, 'more file')}")
    return "\n".join([*lines, fold_table(folds, corpus.classes)])


def chosen(folds: list[Fold], numbers: tuple[int, ...] | None) -> list[Fold]:
    if numbers is None:
        return folds
    known = [fold.number for fold in folds]
    if unknown := sorted(set(numbers) - set(known)):
        raise RecipeError(f"--folds {' '.join(map(str, unknown))}: there are folds {', '.join(map(str, known))}.")
    return [fold for fold in folds if fold.number in numbers]
