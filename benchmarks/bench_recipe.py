"""A training epoch of the recipe against the usual script written plainly, measure by measure:

python benchmarks/bench_recipe.py --out benchmarks/results/VERSION-cpu-recipe.json

Both sides train the same wav2vec 2.0 of random weights on the same utterances, as long as IEMOCAP's and of noise: the
clock hears neither. Each row is a process of its own, for the allocator and the peak memory are a process's.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.optim import AdamW

sys.path.append(str(Path(__file__).parents[1] / "examples"))

from accelerate import Accelerator
from transformers import Wav2Vec2Config, Wav2Vec2Model

import common
import plain_script
import tables
from recipe.data.audio import SAMPLE_RATE, read_waveform
from recipe.data.corpus import Corpus
from recipe.features.backbones import backbone_kind, load_backbone
from recipe.features.backbones.wav2vec2 import Wav2Vec2Backbone
from recipe.features.batches import Batch, UtteranceFeatures, check_budget, training_steps, within_budget
from recipe.features.cache import FeatureCache, cached_features
from recipe.hardware import dynamo, resolved_precision
from recipe.settings import Settings
from recipe.training.allocator import keep_pages
from recipe.training.epoch import EpochTrainer, gradients
from recipe.training.fit import parameter_groups
from recipe.training.model import EmotionModel, Trainee
from recipe.training.progress import Progress
from recipe.training.stopping import Stop
from recipe.training.systems import PROPOSED, STAGE_1, paper_systems
from utterances import (
    Sample,
    budget_batches,
    corpus_seconds,
    describe,
    frame_count,
    iemocap_release,
    noise_corpus,
    padded_frames,
    take_sample,
    whole_corpus,
    write_noise,
)

CPU = torch.device("cpu")
KINDS = {"base": Wav2Vec2Backbone, "tiny": backbone_kind("tiny")}


class Row(NamedTuple):
    key: str
    name: str
    group: Literal["ladder", "stage 2", "alone"] = "ladder"
    cnn: Literal["trained", "frozen", "no_grad", "cached"] = "trained"
    fused: bool = False
    by_length: bool = False
    kept_pages: bool = False
    bf16: bool = False
    compile: bool = False

    @property
    def recipe(self) -> bool:
        """Whether it is the recipe itself that trains, and no longer a script with some of its measures."""
        return self.cnn == "cached" and self.by_length


def all_rows(bf16: bool, compiled: bool) -> list[Row]:
    """The ladder, each row with the measures of those before it; then each measure alone."""
    ladder = [Row("cnn-trained", "the usual script, CNN trained")]

    def add(key: str, name: str, **measure: Any) -> None:
        ladder.append(ladder[-1]._replace(key=key, name=name, **measure))

    add("cnn-frozen", "+ CNN frozen", cnn="frozen")
    add("no-grad", "+ CNN under no_grad, fused AdamW", cnn="no_grad", fused=True)
    add("by-length", "+ batches by length, under the frame budget", by_length=True)
    add("cached", "+ cached features: the recipe", cnn="cached")
    add("kept-pages", "+ kept pages", kept_pages=True)
    if bf16:
        add("bf16", "+ bf16", bf16=True)
    stage2 = ladder[-1]._replace(key="stage-2", name=f"the same in stage 2: {PROPOSED}", group="stage 2")
    if compiled:
        add("compiled", "+ torch.compile", compile=True)
    alone = [
        Row("only-by-length", "batches by length, under the frame budget", "alone", by_length=True),
        Row("only-cached", "cached features, of a frozen CNN", "alone", cnn="cached"),
        Row("only-kept-pages", "kept pages", "alone", kept_pages=True),
        *([Row("only-bf16", "bf16", "alone", bf16=True)] if bf16 else []),
    ]
    return [*ladder, stage2, *alone]


def main() -> None:
    arguments = parse()
    if arguments.child:
        child(arguments)
        return
    settings = replace(settings_of(arguments.backbone), batch_size=arguments.batch_size)
    seconds, source = corpus_seconds(arguments.iemocap or iemocap_release())
    sample = take_sample(seconds, arguments.utterances, settings.batch_size)
    frames = [frame_count(round(SAMPLE_RATE * length)) for length in seconds]
    kind = KINDS[arguments.backbone]
    bf16 = arguments.backbone == "tiny" or resolved_precision("auto", kind) == "bf16"
    rows = [row for row in all_rows(bf16, arguments.compile) if row.key in (arguments.rows or row.key)]
    results: dict[str, Any] = {
        "about": about(),
        "backbone": about_backbone(arguments.backbone),
        "settings": asdict(settings),
        "lengths": {"source": source, "utterances": len(seconds), "mean": statistics.fmean(seconds)},
        "sample": describe(sample, settings.batch_size, settings.frame_budget),
        "whole": whole_corpus(frames, settings.batch_size, settings.frame_budget),
        "rows": [{**row._asdict(), "seconds": [], "peak_bytes": []} for row in rows],
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_noise(folder / "wav", sample.samples)
        (folder / "sample.json").write_text(json.dumps(sample))
        results["features"] = process(folder, "features")
        for number in range(max(arguments.rounds, arguments.alone_rounds)):
            # there and back, so that a machine that becomes slower is no row's fault
            for record in results["rows"][:: 1 if number % 2 == 0 else -1]:
                if number >= (arguments.alone_rounds if record["group"] == "alone" else arguments.rounds):
                    continue
                found = process(folder, record["key"])
                record["seconds"].append(found.pop("seconds"))
                record["peak_bytes"].append(found.pop("peak_bytes"))
                record.update(found)
                print(f"round {number + 1}, {record['key']}: {record['seconds'][-1]:.2f} s", file=sys.stderr)
                save(arguments.out, results)
        same_utterances(results["rows"], len(sample.samples))
        write_noise(folder / "longest", longest_step(seconds, arguments.backbone))
        results["longest"] = [process(folder, key) for key in ("longest-alone", "longest-step")]
    results["table3"] = table3(results, settings)
    save(arguments.out, results)
    print(tables.recipe_tables(results))


def settings_of(backbone: str) -> Settings:
    return KINDS[backbone].settings


def about() -> dict[str, Any]:
    packages = {package: version(package) for package in ("transformers", "accelerate")}
    return common.about(CPU) | {
        "peers": packages,
        "allocators": {"default": {}, "kept pages": "recipe.training.allocator.keep_pages"},
    }


def about_backbone(name: str) -> dict[str, Any]:
    model = wav2vec2(name)
    return {
        "name": name,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        **{setting: getattr(model.config, setting) for setting in CONFIGURATION},
    }


# What training time depends on beside the shapes; the checkpoint's dropouts may differ from the class's, used here
CONFIGURATION = (
    "feat_extract_norm",
    "do_stable_layer_norm",
    "layerdrop",
    "apply_spec_augment",
    "activation_dropout",
    "attention_dropout",
    "hidden_dropout",
    "feat_proj_dropout",
)


def process(folder: Path, key: str) -> dict[str, Any]:
    """What a process of this script finds, under glibc's allocator as it is."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    subprocess.run([sys.executable, *sys.argv, "--child", json.dumps([str(folder), key])], env=environment, check=True)
    found: dict[str, Any] = json.loads((folder / f"{key}.json").read_text())
    return found


def save(path: Path, results: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=1) + "\n")  # kept, should a later process fail


def same_utterances(rows: Sequence[dict[str, Any]], count: int) -> None:
    for row in rows:
        seen = sorted(index for batch in row["batches"] for index in batch)
        if seen != list(range(count)):
            raise SystemExit(f"{row['key']}: trained on {seen}, and not on each of the {count} utterances once.")


def table3(results: dict[str, Any], settings: Settings) -> dict[str, Any] | None:
    """The hours of all six systems on five folds, by the measured time of an utterance; None where a row is missing."""
    count = results["sample"]["utterances"]
    measured = {
        row["key"]: statistics.median(row["seconds"]) / count for row in results["rows"] if row["group"] != "alone"
    }
    ours = next((key for key in ("bf16", "kept-pages") if key in measured), None)
    if ours is None or not {"cnn-trained", "cnn-frozen", "stage-2"} <= measured.keys():
        return None
    systems = len(paper_systems(settings))
    epochs1, epochs2 = settings.stage1.epochs, settings.stage2.epochs
    utterances = results["lengths"]["utterances"]
    trained = 4 * utterances  # over five folds, each without one session
    features = utterances * results["features"]["seconds"] / count

    def usual(key: str) -> float:
        return systems * (epochs1 + epochs2) * trained * measured[key] / 3600

    stages = (epochs1 * measured[ours] + systems * epochs2 * measured["stage-2"]) * trained
    return {
        "systems": systems,
        "epochs": [epochs1, epochs2],
        "usual_epochs": systems * (epochs1 + epochs2),
        "our_epochs": epochs1 + systems * epochs2,
        "hours": {
            "usual, CNN trained": usual("cnn-trained"),
            "usual, CNN frozen": usual("cnn-frozen"),
            "ours": (stages + features) / 3600,
        },
        "features_hours": features / 3600,
        "row": ours,
    }


def child(arguments: argparse.Namespace) -> None:
    name, key = json.loads(arguments.child)
    folder = Path(name)
    torch.manual_seed(0)
    settings = replace(settings_of(arguments.backbone), batch_size=arguments.batch_size)
    if key == "features":
        found = features_once(folder, arguments.backbone)
    elif key in ("longest-alone", "longest-step"):
        found = memory_step(folder, arguments.backbone, alone=key == "longest-alone")
    else:
        row = next(row for row in all_rows(bf16=True, compiled=True) if row.key == key)
        found = timed_epoch(row, folder, arguments.backbone, settings)
    (folder / f"{key}.json").write_text(json.dumps(found | {"peak_bytes": peak_bytes()}))


def wav2vec2(backbone: str) -> Wav2Vec2Model:
    """Of random weights, all of them learning. `base` has the shapes of facebook/wav2vec2-base; no layer is dropped,
    nor are features masked, as the recipe has it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # the same in every process, or cached features would not be found
        if backbone == "tiny":
            model = load_backbone("tiny").model
        else:
            model = Wav2Vec2Model(Wav2Vec2Config(layerdrop=0.0, apply_spec_augment=False))
    assert model.config.feat_extract_norm == "group"
    assert not model.config.do_stable_layer_norm
    return model.requires_grad_(True)


def features_once(folder: Path, backbone: str) -> dict[str, Any]:
    """The recipe's cache of the CNN's features, filled: reading, the CNN on each utterance alone, writing."""
    keep_pages()
    corpus, model = noise_corpus(folder / "wav"), Wav2Vec2Backbone(wav2vec2(backbone), normalise=True)
    began = time.perf_counter()
    cached_features(corpus, FeatureCache(folder / "cache", model, CPU), progress=False)
    return {"seconds": time.perf_counter() - began}


def timed_epoch(row: Row, folder: Path, backbone: str, settings: Settings) -> dict[str, Any]:
    if row.kept_pages:
        keep_pages()
    sample = Sample(*json.loads((folder / "sample.json").read_text()))
    corpus = noise_corpus(folder / "wav")
    seen: list[list[int]] = []
    prepare = recipe_epoch if row.recipe else plain_epoch
    warm_up, epoch = prepare(row, corpus, sample, folder, wav2vec2(backbone), settings, seen)
    warm_up()
    seen.clear()
    began = time.perf_counter()
    epoch()
    seconds = time.perf_counter() - began
    return {
        "seconds": seconds,
        "batches": seen,
        "real": sum(sample.frames) / padded_frames(seen, sample.frames),
    }


Prepared = tuple[Callable[[], object], Callable[[], object]]


def plain_epoch(
    row: Row,
    corpus: Corpus,
    sample: Sample,
    folder: Path,
    model: Wav2Vec2Model,
    settings: Settings,
    seen: list[list[int]],
) -> Prepared:
    """The usual script with the row's measures; its waveforms are in memory beforehand."""
    labels = torch.tensor([corpus.classes.index(utterance.label) for utterance in corpus.utterances])
    if row.cnn == "cached":
        backbone = Wav2Vec2Backbone(model, normalise=True)
        cache, *_ = cached_features(corpus, FeatureCache(folder / "cache", backbone, CPU), progress=False)
        inputs = [cache[utterance.id] for utterance in corpus.utterances]
    else:
        waveforms = [read_waveform(utterance.path) for utterance in corpus.utterances]
        inputs = [(waveform - waveform.mean()) / waveform.std() for waveform in waveforms]
    if row.cnn != "trained":
        model.freeze_feature_encoder()
    kinds = {"cached": plain_script.CachedClassifier, "no_grad": plain_script.NoGradClassifier}
    classifier = kinds.get(row.cnn, plain_script.Classifier)(model, len(corpus.classes))
    optimizer = AdamW(classifier.parameters(), lr=1e-5, fused=True if row.fused else None)

    def load(batch: Sequence[int]) -> tuple[Tensor, Tensor]:
        seen.append(list(batch))
        return pad_sequence([inputs[index].float() for index in batch], batch_first=True), labels[list(batch)]

    if row.by_length:
        steps = training_steps(sample.frames, settings.batch_size, seed=0, epoch=1)
        batches = budget_batches(steps, sample.frames, settings.frame_budget)
    else:
        batches = [[batch] for batch in sample.random_batches(settings.batch_size)]
    # Where pages are kept, the largest step has them taken before the clock starts, as an earlier epoch would have
    first = max(batches, key=lambda step: padded_frames(step, sample.frames)) if row.kept_pages else [[0, 1]]
    return (
        lambda: plain_script.train_epoch(classifier, optimizer, [first], load, row.bf16),
        lambda: plain_script.train_epoch(classifier, optimizer, batches, load, row.bf16),
    )


class SeenFeatures(UtteranceFeatures):
    """Notes its batches, and refuses one above the budget."""

    def watch(self, frame_budget: int, seen: list[list[int]]) -> "SeenFeatures":
        self.frame_budget, self.seen = frame_budget, seen
        return self

    def padded(self, indices: Sequence[int]) -> Batch:
        batch = super().padded(indices)
        shape = tuple(batch.mask.shape)
        assert batch.mask.numel() <= self.frame_budget, f"{shape} exceeds the budget of {self.frame_budget}"
        self.seen.append(list(indices))
        return batch


def recipe_epoch(
    row: Row,
    corpus: Corpus,
    sample: Sample,
    folder: Path,
    model: Wav2Vec2Model,
    settings: Settings,
    seen: list[list[int]],
) -> Prepared:
    """As recipe.experiment and recipe.training.fit set it up, and train."""
    accelerator = Accelerator(cpu=True, mixed_precision="bf16" if row.bf16 else "no", dynamo_plugin=dynamo(row.compile))
    system = paper_systems(settings)[-1] if row.group == "stage 2" else STAGE_1
    stage, backbone = system.stage_settings(settings), Wav2Vec2Backbone(model, normalise=True)
    cache, *_ = cached_features(corpus, FeatureCache(folder / "cache", backbone, CPU), progress=False)
    train = SeenFeatures(corpus.utterances, cache, corpus.classes).watch(settings.frame_budget, seen)
    assert train.lengths == sample.frames
    pooling = system.build_pooling(backbone.dim, settings)
    trainee = Trainee(EmotionModel(backbone, pooling, len(corpus.classes)), system.objective())
    optimizer = AdamW(parameter_groups(trainee.model, stage), weight_decay=settings.weight_decay, fused=True)
    prepared, prepared_optimizer = accelerator.prepare(trainee, optimizer)
    trainer = EpochTrainer(
        prepared, prepared_optimizer, train, stage, settings, accelerator, 0, Progress(0, 0, disable=True)
    )

    def epoch() -> None:
        trainer.train(epoch=1, stop=Stop())

    def warm_up() -> None:
        if row.compile:  # every shape is compiled, which may take minutes
            epoch()
            return
        steps = training_steps(train.lengths, settings.batch_size, seed=0, epoch=1)
        step = max(steps, key=lambda step: padded_frames([step], sample.frames)) if row.kept_pages else [0, 1]
        trainee.train()
        next(gradients(prepared, train, [step], settings.frame_budget, accelerator))
        prepared_optimizer.step()
        prepared_optimizer.zero_grad()

    return warm_up, epoch


def longest_step(seconds: Sequence[float], backbone: str) -> list[int]:
    """The samples of the step that has the longest utterance, of an epoch of the recipe over the whole corpus."""
    samples = sorted(round(SAMPLE_RATE * length) for length in seconds)
    frames = [frame_count(length) for length in samples]
    steps = training_steps(frames, settings_of(backbone).batch_size, seed=0, epoch=1)
    return sorted(samples[index] for index in next(step for step in steps if len(samples) - 1 in step))


def memory_step(folder: Path, backbone: str, alone: bool) -> dict[str, Any]:
    """A step of the recipe as it comes, of the corpus's longest utterance alone or with those of its step."""
    keep_pages()
    settings = settings_of(backbone)
    precision = resolved_precision("auto", KINDS[backbone])
    accelerator = Accelerator(cpu=True, mixed_precision=precision)
    model = Wav2Vec2Backbone(wav2vec2(backbone), normalise=True)
    corpus = noise_corpus(folder / "longest")
    features, *_ = cached_features(corpus, FeatureCache(folder / "cache", model, CPU), progress=False)
    check_budget(corpus.utterances, features, settings.frame_budget)
    seen: list[list[int]] = []
    train = SeenFeatures(corpus.utterances, features, corpus.classes).watch(settings.frame_budget, seen)
    trainee = Trainee(
        EmotionModel(model, STAGE_1.build_pooling(model.dim, settings), len(corpus.classes)), STAGE_1.objective()
    )
    optimizer = AdamW(parameter_groups(trainee.model, settings.stage1), weight_decay=settings.weight_decay, fused=True)
    prepared, prepared_optimizer = accelerator.prepare(trainee, optimizer)
    prepared.train()
    step = [len(train) - 1] if alone else list(range(len(train)))
    batches = within_budget(step, train.lengths, settings.frame_budget)
    available = available_bytes()
    if available:  # rather than have the kernel end a process of its choice
        resource.setrlimit(resource.RLIMIT_DATA, (available, available))
    try:
        next(gradients(prepared, train, [step], settings.frame_budget, accelerator))
        accelerator.clip_grad_norm_(prepared.parameters(), settings.clip_norm)
        prepared_optimizer.step()
    except (RuntimeError, MemoryError) as error:
        if not any(word in str(error) for word in ("alloc", "create a primitive")):  # PyTorch's, libstdc++'s, oneDNN's
            raise
    else:
        assert seen == batches
        available = 0
    return {
        "seconds_of_speech": round(len(read_waveform(corpus.utterances[-1].path)) / SAMPLE_RATE, 2),
        "frames": train.lengths[-1],
        "precision": precision,
        "frame_budget": settings.frame_budget,
        "batches": [[len(batch), max(train.lengths[index] for index in batch)] for batch in batches],
        "exceeds_bytes": available,
    }


def available_bytes() -> int:
    """What this process could have in all, short of a gigabyte that others may want; 0 where nothing says."""
    if not Path("/proc/meminfo").exists():
        return 0
    return tell("/proc/meminfo", "MemAvailable") + tell("/proc/self/status", "VmRSS") - 10**9


def peak_bytes() -> int:
    """The most memory that the process has had: its resident set's high-water mark, libraries and all."""
    if Path("/proc/self/status").exists():  # getrusage would begin with what the parent had before exec
        return tell("/proc/self/status", "VmHWM")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # in bytes on macOS


def tell(path: str, name: str) -> int:
    return 1024 * next(int(line.split()[1]) for line in Path(path).read_text().splitlines() if line.startswith(name))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--backbone", choices=tuple(KINDS), default="base", help="tiny: for tests")
    parser.add_argument("--utterances", type=int, default=24, help="in an epoch; a multiple of the batch size")
    parser.add_argument("--batch-size", type=int, default=8, help="utterances of a step, on both sides")
    parser.add_argument("--rounds", type=int, default=2, help="of the ladder")
    parser.add_argument("--alone-rounds", type=int, default=1, help="of the measures on their own")
    keys = [row.key for row in all_rows(bf16=True, compiled=True)]
    parser.add_argument("--rows", nargs="+", choices=keys, help="only these")
    parser.add_argument("--compile", action="store_true", help="a row with torch.compile, which may take minutes")
    parser.add_argument("--iemocap", type=Path, help="IEMOCAP_full_release, for its lengths; else FRAMEALIGN_DATA's")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
