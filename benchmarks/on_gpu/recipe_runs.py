"""What `recipe` times: a pass of the recipe, and one of the usual script, over utterances as long as IEMOCAP's."""

import contextlib
import copy
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.optim import AdamW

sys.path.append(str(Path(__file__).parents[2] / "examples"))

from accelerate import Accelerator
from transformers import Wav2Vec2Config, Wav2Vec2Model

import plain_script
from on_gpu.options import Options
from on_gpu.timing import synchronize
from recipe.data.audio import SAMPLE_RATE
from recipe.data.corpus import FOUR_CLASSES, Utterance
from recipe.features.backbones import load_backbone
from recipe.features.backbones.wav2vec2 import Wav2Vec2Backbone
from recipe.features.batches import Batch, UtteranceFeatures, training_steps, within_budget
from recipe.settings import Settings
from recipe.training.epoch import EpochTrainer
from recipe.training.fit import parameter_groups
from recipe.training.model import EmotionModel, Trainee
from recipe.training.progress import Progress
from recipe.training.stopping import Stop
from recipe.training.systems import STAGE_1, System, paper_systems
from utterances import corpus_seconds, frame_count, iemocap_release, padded_frames


class Row(NamedTuple):
    key: str
    name: str
    group: str  # rows of a group are measured in turns, with one model
    frame_budget: int = 0  # of the recipe
    ahead: bool = True
    bf16: bool = True
    cudnn: bool = True  # attention of cuDNN, where PyTorch prefers it
    profiled: bool = False


class Corpus(NamedTuple):
    """The lengths of IEMOCAP's utterances, and long noise to cut them from: sound, and features of it."""

    samples: list[int]
    source: str
    noise: Tensor
    features: dict[str, Tensor]  # half precision, on the host, each in memory of its own as those of the cache are

    def draw(self, count: int, number: int) -> list[int]:
        generator = torch.Generator().manual_seed(number)
        return torch.randperm(len(self.samples), generator=generator)[:count].tolist()

    def training(self, indices: Sequence[int], ahead: bool) -> UtteranceFeatures:
        utterances = [Utterance(str(i), Path(), FOUR_CLASSES[i % len(FOUR_CLASSES)], "") for i in indices]
        kind = UtteranceFeatures if ahead else MadeInTheStep
        return kind(utterances, self.features, FOUR_CLASSES)


class MadeInTheStep(UtteranceFeatures):
    """Pads and copies a batch when the step asks for it, from memory that is not pinned."""

    def batches(self, passes: Sequence[Sequence[int]], device: torch.device) -> Iterator[Batch]:
        yield from (self.batch(indices, device) for indices in passes)


def on_gpu(options: Options) -> bool:
    return options.device.type == "cuda"


def make_backbone(small: bool) -> Wav2Vec2Backbone:
    if small:
        return load_backbone("tiny")
    return Wav2Vec2Backbone(Wav2Vec2Model(Wav2Vec2Config(layerdrop=0.0, apply_spec_augment=False)), normalise=True)


def make_corpus(backbone: Wav2Vec2Backbone, options: Options, count: int | None) -> Corpus:
    """Of the whole corpus, or of `count` utterances spread over its lengths."""
    seconds, source = corpus_seconds(iemocap_release())
    if count is not None:
        seconds = seconds[len(seconds) // (2 * count) :: len(seconds) // count][:count]
    samples = [round(SAMPLE_RATE * length) for length in seconds]
    generator = torch.Generator().manual_seed(0)
    noise = 0.1 * torch.randn(max(samples), generator=generator)
    front_end = copy.deepcopy(backbone).to(options.device)
    long = front_end.features(noise.to(options.device)).cpu().half()
    features = {}
    for index, length in enumerate(samples):
        frames = frame_count(length)
        start = int(torch.randint(len(long) - frames + 1, (), generator=generator))
        features[str(index)] = long[start : start + frames].clone()
    return Corpus(samples, source, noise, features)


class Epoch(NamedTuple):
    """What one pass over some utterances cost."""

    seconds: float
    utterances: int
    frames: int
    padded: int


Run = Callable[[Row, list[int], int], Epoch]  # over these utterances, in an order that the number tells


def recipe_run(group: str, backbone: Wav2Vec2Backbone, corpus: Corpus, settings: Settings, options: Options) -> Run:
    """As recipe.experiment and recipe.training.fit set it up, and train."""
    system: System = STAGE_1 if group == "stage 1" else paper_systems(settings)[-1]
    stage = system.stage_settings(settings)
    accelerator = Accelerator(cpu=not on_gpu(options), mixed_precision="bf16")
    own = copy.deepcopy(backbone)
    pooling = system.build_pooling(own.dim, settings)
    model = EmotionModel(own, pooling, len(FOUR_CLASSES)).to(options.device)
    optimizer = AdamW(parameter_groups(model, stage), weight_decay=settings.weight_decay, fused=True)
    trainee, prepared_optimizer = accelerator.prepare(Trainee(model, system.objective()), optimizer)

    def run(row: Row, indices: list[int], number: int) -> Epoch:
        train = corpus.training(indices, row.ahead)
        budget = max(row.frame_budget, max(train.lengths))
        chosen = replace(settings, frame_budget=budget)
        steps = training_steps(train.lengths, settings.batch_size, seed=number, epoch=1)
        padded = sum(padded_frames(within_budget(step, train.lengths, budget), train.lengths) for step in steps)
        with Progress(len(steps), 0, disable=True) as progress, attention(row, options):
            began = now(options)
            trainer = EpochTrainer(trainee, prepared_optimizer, train, stage, chosen, accelerator, number, progress)
            trainer.train(epoch=1, stop=Stop())
            return Epoch(now(options) - began, len(train), sum(train.lengths), padded)

    return run


def usual_run(group: str, backbone: Wav2Vec2Backbone, corpus: Corpus, settings: Settings, options: Options) -> Run:
    """plain_script.py; its waveforms are in memory, so that it reads no files either."""
    classifier = plain_script.Classifier(copy.deepcopy(backbone.model).requires_grad_(True), len(FOUR_CLASSES))
    classifier.to(options.device)
    optimizer = AdamW(classifier.parameters(), lr=1e-5)

    def run(row: Row, indices: list[int], number: int) -> Epoch:
        waveforms = {i: corpus.noise[-corpus.samples[i] :].clone() for i in indices}
        frames = {i: frame_count(corpus.samples[i]) for i in indices}
        size = settings.batch_size
        batches = [indices[start : start + size] for start in range(0, len(indices), size)]

        def load(batch: Sequence[int]) -> tuple[Tensor, Tensor]:
            labels = torch.tensor([i % len(FOUR_CLASSES) for i in batch])
            return pad_sequence([waveforms[i] for i in batch], batch_first=True), labels

        with attention(row, options):
            began = now(options)
            plain_script.train_epoch(classifier, optimizer, [[batch] for batch in batches], load, row.bf16)
            seconds = now(options) - began
        return Epoch(seconds, len(indices), sum(frames.values()), padded_frames(batches, frames))

    return run


@contextlib.contextmanager
def attention(row: Row, options: Options) -> Iterator[None]:
    before = torch.backends.cuda.cudnn_sdp_enabled()
    torch.backends.cuda.enable_cudnn_sdp(before and row.cudnn)
    try:
        yield
    finally:
        torch.backends.cuda.enable_cudnn_sdp(before)


def now(options: Options) -> float:
    """When all is done that the device was asked for."""
    synchronize(options.device)
    return time.perf_counter()
