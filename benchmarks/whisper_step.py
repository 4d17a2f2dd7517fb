"""A training step with Whisper: the recipe's against the usual one, in one run.

python benchmarks/whisper_step.py --data PATH/TO/Audio_Speech_Actors_01-24 --backbone openai/whisper-base

The usual one is transformers' `WhisperForAudioClassification`: each utterance padded to 30 s, the whole encoder in
every step. Log-mel spectra are computed before for both, and precision, batch size and utterances are the same. Rows
are timed in turns; a figure is the median over them.
"""

import argparse
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import cycle
from pathlib import Path

import torch
from accelerate import Accelerator
from torch.optim import AdamW
from transformers import WhisperForAudioClassification

sys.path.append(str(Path(__file__).parents[1] / "examples"))

from recipe.data.audio import SAMPLE_RATE, read_waveform
from recipe.data.corpora import read_corpus
from recipe.data.corpus import Utterance
from recipe.features.backbones.whisper import WhisperBackbone
from recipe.features.batches import UtteranceFeatures, training_steps
from recipe.features.checkpoints import preprocessor
from recipe.hardware import resolved_precision
from recipe.settings import Settings
from recipe.training.allocator import keep_pages
from recipe.training.epoch import gradients
from recipe.training.fit import parameter_groups
from recipe.training.model import EmotionModel, Trainee
from recipe.training.systems import PROPOSED, STAGE_1, paper_systems

Step = Callable[[], object]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="RAVDESS")
    parser.add_argument("--backbone", default="openai/whisper-base")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=5, help="of the recipe in a round; the usual script takes one")
    arguments = parser.parse_args()
    keep_pages()
    torch.manual_seed(0)

    corpus = read_corpus("ravdess", arguments.data, "own")
    settings = WhisperBackbone.settings_for(arguments.backbone)
    count = min(16 * settings.batch_size, len(corpus.utterances))
    utterances = random.Random(0).sample(corpus.utterances, count)
    accelerator = Accelerator(mixed_precision=resolved_precision("auto", WhisperBackbone))
    whole = replace(settings, frozen_layers=0, layers="last")
    stage2 = next(system for system in paper_systems(settings) if system.name == PROPOSED)
    rows: dict[str, Step] = {
        "usual: padded to 30 s, the whole encoder": usual(arguments.backbone, utterances, corpus.classes, accelerator)
    }
    for name, system, own in (
        ("own length, the whole encoder, stage 1", STAGE_1, whole),
        ("the recipe, stage 1", STAGE_1, settings),
        (f"the recipe, stage 2: {stage2.name}", stage2, settings),
    ):
        rows[name] = recipe(arguments.backbone, utterances, corpus.classes, accelerator, system, own)
    seconds: dict[str, list[float]] = {name: [] for name in rows}
    for step in rows.values():
        step()  # warm up
    for _ in range(arguments.rounds):
        for number, (name, step) in enumerate(rows.items()):
            count = arguments.steps if number else 1
            began = time.perf_counter()
            for _ in range(count):
                step()
            if accelerator.device.type == "cuda":
                torch.cuda.synchronize()
            seconds[name].append((time.perf_counter() - began) / count)
    mean = statistics.fmean(len(read_waveform(u.path)) / SAMPLE_RATE for u in utterances)
    print(
        f"{arguments.backbone}, {accelerator.device}, {torch.get_num_threads()} threads, "
        f"{accelerator.mixed_precision}; steps of {settings.batch_size} utterances of {mean:.1f} s; "
        f"median of {arguments.rounds} rounds"
    )
    first = next(iter(rows))
    print("| step | utterances a second | against the usual |\n| --- | --- | --- |")
    for name, found in seconds.items():
        ratios = [one / other for one, other in zip(seconds[first], found, strict=True)]
        print(f"| {name} | {settings.batch_size / statistics.median(found):.2f} | {statistics.median(ratios):.1f}x |")


def usual(name: str, utterances: list[Utterance], classes: tuple[str, ...], accelerator: Accelerator) -> Step:
    model = WhisperForAudioClassification.from_pretrained(name, num_labels=len(classes), dtype=torch.float32)
    model.to(accelerator.device).train()
    optimizer = AdamW((p for p in model.parameters() if p.requires_grad), lr=1e-5, fused=True)
    size = WhisperBackbone.settings.batch_size
    batches = []
    for start in range(0, len(utterances), size):
        some = utterances[start : start + size]
        waveforms = [read_waveform(utterance.path).numpy() for utterance in some]
        inputs = preprocessor(name)(waveforms, sampling_rate=SAMPLE_RATE, return_tensors="pt").input_features
        batches.append((inputs, torch.tensor([classes.index(utterance.label) for utterance in some])))
    turns = cycle(batches)

    def step() -> None:
        inputs, labels = (tensor.to(accelerator.device) for tensor in next(turns))
        with accelerator.autocast():
            loss = model(inputs, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def recipe(
    name: str,
    utterances: list[Utterance],
    classes: tuple[str, ...],
    accelerator: Accelerator,
    system: object,
    settings: Settings,
) -> Step:
    backbone = WhisperBackbone.load(name, settings).to(accelerator.device)
    features = {u.id: backbone.features(read_waveform(u.path).to(accelerator.device)).half().cpu() for u in utterances}
    train = UtteranceFeatures(utterances, features, classes)
    model = EmotionModel(backbone, system.build_pooling(backbone.dim, settings), len(classes)).to(accelerator.device)
    trainee = Trainee(model, system.objective())
    stage = system.stage_settings(settings)
    optimizer = AdamW(parameter_groups(model, stage), weight_decay=settings.weight_decay, fused=True)
    prepared, prepared_optimizer = accelerator.prepare(trainee, optimizer)
    prepared.train()

    def endless() -> Iterator[None]:
        epoch = 0
        while True:
            epoch += 1
            steps = training_steps(train.lengths, settings.batch_size, 0, epoch)
            for _ in gradients(prepared, train, steps, settings.frame_budget, accelerator):
                accelerator.clip_grad_norm_(prepared.parameters(), settings.clip_norm)
                prepared_optimizer.step()
                prepared_optimizer.zero_grad()
                yield

    turns = endless()
    return lambda: next(turns)


if __name__ == "__main__":
    main()
