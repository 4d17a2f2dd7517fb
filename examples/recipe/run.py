"""An experiment from end to end: backbone, corpus, folds, features, trainings. Goes on where one was stopped."""

import json
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import TorchDynamoPlugin, broadcast_object_list

from recipe.allocator import keep_pages
from recipe.audio import check_audio
from recipe.backbones import load_backbone
from recipe.batches import check_budget
from recipe.corpora import Corpus
from recipe.errors import RecipeError
from recipe.feature_cache import cached_features, state_digest
from recipe.files import write_text
from recipe.folds import Fold, fold_digest, fold_table, write_folds
from recipe.options import Options
from recipe.plan import Part, Training, make_plan
from recipe.progress import Progress
from recipe.results import Results
from recipe.systems import System
from recipe.task import make_folds, read
from recipe.training import steps_an_epoch
from recipe.two_stage import TwoStages


def run(options: Options, train: Callable[["Experiment"], object]) -> None:
    """What the scripts do: `train`, or with `--dry-run` only look."""
    if options.dry_run:
        dry_run(options)
    else:
        train(Experiment(options))


class Experiment:
    """A corpus, its folds, its features and a backbone, in an output folder that is theirs: ready to train systems."""

    def __init__(self, options: Options) -> None:
        keep_pages()
        self.options = options
        self.precision = resolved_precision(options.precision, options.backbone)
        self.accelerator = Accelerator(mixed_precision=self.precision, dynamo_plugin=dynamo(options.compile))
        # The backbone comes first: a wrong name should not cost the reading of a corpus
        self.backbone = load_backbone(options.backbone)
        check_processes(self.accelerator)
        if self.backbone.dim % options.settings.num_heads:
            raise RecipeError(
                f"--num_heads {options.settings.num_heads}: must divide {self.backbone.dim}, the width of "
                f"{options.backbone}'s frames."
            )
        weights = state_digest(self.backbone.state_dict()).hexdigest()
        self.announce(self.equipment())
        self.corpus = read(options)
        self.announce(
            f"corpus {self.corpus.name}: {len(self.corpus.utterances)} utterances, "
            f"classes {', '.join(self.corpus.classes)}"
        )
        chosen(make_folds(options, self.corpus), options.folds)  # refused, if they are, before the audio is read
        with self.accelerator.main_process_first():
            self.features, content = cached_features(
                self.corpus,
                self.backbone.to(self.accelerator.device),
                options.cache,
                self.accelerator.device,
                progress=self.main,
            )
        check_budget(self.corpus.utterances, self.features, options.settings.frame_budget)
        # Once more, without the utterances whose audio cannot be used
        every_fold = make_folds(options, self.corpus)
        self.folds = chosen(every_fold, options.folds)
        self.announce(overview(self.corpus, self.folds))
        if self.main:
            claim(options.output, self.setup(weights, content, fold_digest(every_fold, self.corpus.classes)))
            write_folds(options.output / "folds.json", self.folds, self.corpus.classes)
        self.accelerator.wait_for_everyone()

    @property
    def main(self) -> bool:
        return self.accelerator.is_main_process

    def announce(self, text: str) -> None:
        if self.main:
            print(text, flush=True)

    def equipment(self) -> str:
        size = sum(p.numel() for p in self.backbone.parameters()) / 1e6
        precision = "float32" if self.precision == "no" else self.precision
        text = f"backbone {self.options.backbone}: {size:.1f} M parameters, on {self.accelerator.device}, {precision}"
        processes = self.accelerator.num_processes
        return f"{text}, {processes} processes" if processes > 1 else text

    def setup(self, weights: str, content: str, folds: str) -> dict:
        """What all trainings of an output folder share."""
        return {
            "corpus": self.corpus.name,
            "classes": list(self.corpus.classes),
            "content": content,
            "folds": folds,
            "backbone": self.options.backbone,
            "weights": weights,
            "precision": self.precision,
            "compile": self.options.compile,
            "settings": asdict(self.options.settings),
        }

    def train(self, systems: list[System], report: Callable[[Results], str], name: str = "results") -> Results:
        """Train what is not finished in the output folder yet; what came out of all.

        Args:
            systems: Stage 1, then the others.
            report: Writes the report and figures into the folder, also of an interrupted run; the lines for the
                terminal.
            name: Of the files with the data: `results.json`, for one.
        """
        options, settings = self.options, self.options.settings
        plan = make_plan(options.seeds, self.folds, systems, options.output)
        steps = {
            training: steps_an_epoch(len(part.fold.train), settings) * training.system.epochs(settings)
            for part in plan
            for training in part.trainings
        }
        finished = self.agreed([training for training in steps if training.finished], list(steps))
        if finished:
            self.announce(f"{len(finished)} of {len(steps)} trainings are finished in {options.output}; going on")
        results = Results(
            self.corpus, options.output, options.backbone, settings, plan, name, self.precision, options.data is None
        )
        if self.main:
            options.write(results.file("config.yaml"))
        try:
            done = sum(steps[training] for training in finished)
            with Progress(sum(steps.values()), done, disable=not self.main) as progress:
                stages = TwoStages(
                    self.backbone,
                    self.features,
                    self.corpus.classes,
                    settings,
                    self.accelerator,
                    progress,
                    options.save_models,
                )
                for part in plan:
                    if list(stages.train(part, finished)) and self.main:
                        results.write()
                        progress.say(part_table(part, results))
        finally:  # an interrupted run reports what it had finished
            results.read()
            if results.finished and self.main:
                results.write()
                print(report(results), flush=True)
        return results

    def agreed(self, finished: list[Training], everything: list[Training]) -> set[Training]:
        """What the main process found finished: all must skip the same, whatever they see on a shared disk."""
        flags = broadcast_object_list([training in finished for training in everything])
        return {training for training, flag in zip(everything, flags, strict=True) if flag}


def claim(output: Path, setup: dict) -> None:
    """Make the folder this setup's own, or see that it is: trainings of two setups would be averaged otherwise."""
    path = output / "setup.json"
    if path.exists():
        earlier = json.loads(path.read_text())
        if differing := sorted(differences(earlier, setup)):
            raise RecipeError(
                f"--output {output}: holds a run with {'; '.join(differing)}. Name another folder, or remove it."
            )
        return
    if (output / "results.json").exists():
        raise RecipeError(f"--output {output}: holds the results of another program; name another folder.")
    output.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(setup, indent=1) + "\n")


def differences(earlier: dict, now: dict, prefix: str = "") -> list[str]:
    found = []
    for key in earlier.keys() | now.keys():
        one, other = earlier.get(key), now.get(key)
        if isinstance(one, dict) and isinstance(other, dict):
            found += differences(one, other, f"{prefix}{key}.")
        elif one != other and key == "content":
            found.append("other audio, labels or speakers than the corpus has now")
        elif one != other and key == "folds":
            found.append("other folds")
        elif one != other and key == "weights":
            found.append("other weights of the backbone")
        elif one != other:
            found.append(f"{prefix}{key} {one} and not {other}")
    return found


def check_processes(accelerator: Accelerator) -> None:
    """Refuse processes that a launcher started and that do not know of each other: each would train everything."""
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if started != accelerator.num_processes:
        raise RecipeError(
            f"{started} processes were started, and {accelerator.num_processes} found each other; "
            "on a CPU, set ACCELERATE_USE_CPU=true."
        )


def resolved_precision(precision: str, backbone: str) -> str:
    """float32 for the small backbones, which are not Transformers or not worth it; bf16 where it is fast."""
    if precision != "auto":
        return precision
    if backbone in ("dvector", "tiny"):
        return "no"
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "no"
    return "bf16" if torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported() else "no"


def dynamo(compiled: bool) -> TorchDynamoPlugin | None:
    return TorchDynamoPlugin(backend="inductor", dynamic=True) if compiled else None


def part_table(part: Part, results: Results) -> str:
    """The scores of all systems on one fold, for the terminal."""
    lines = [f"seed {part.seed}, fold {part.fold.number}, {len(part.fold.test)} test utterances:"]
    for training in part.trainings:
        if result := results.finished.get(training):
            epoch = f"   epoch {result.best_epoch} of {len(result.epochs)}" if result.best_epoch else ""
            scores = f"UA {result.scores.ua:.3f}   WA {result.scores.wa:.3f}"
            lines.append(f"  {training.system.name:<32} {scores}{epoch}")
    return "\n".join(lines)


def dry_run(options: Options) -> None:
    corpus = check_audio(read(options))
    folds = chosen(make_folds(options, corpus), options.folds)
    print(overview(corpus, folds))
    if not (options.output / "setup.json").exists():  # an earlier run's stay
        options.output.mkdir(parents=True, exist_ok=True)
        write_folds(options.output / "folds.json", folds, corpus.classes)
        print(f"folds: {options.output / 'folds.json'}")
    print("dry run: nothing was trained")


def overview(corpus: Corpus, folds: list[Fold]) -> str:
    lines = [f"note: {note}" for note in corpus.notes]
    lines += [f"skipped: {skipped.path}: {skipped.reason}" for skipped in corpus.skipped[:10]]
    if len(corpus.skipped) > 10:
        lines.append(f"skipped: {len(corpus.skipped) - 10} more files")
    return "\n".join([*lines, fold_table(folds, corpus.classes)])


def chosen(folds: list[Fold], numbers: tuple[int, ...] | None) -> list[Fold]:
    if numbers is None:
        return folds
    known = [fold.number for fold in folds]
    if unknown := sorted(set(numbers) - set(known)):
        raise RecipeError(f"--folds {' '.join(map(str, unknown))}: there are folds {', '.join(map(str, known))}.")
    return [fold for fold in folds if fold.number in numbers]
