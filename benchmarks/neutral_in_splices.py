"""Why neutral speech is taken for emotion in a splice:

python benchmarks/neutral_in_splices.py --corpus ravdess --data PATH/TO/Audio_Speech_Actors_01-24 \\
    --backbone openai/whisper-base

The options are those of an examples/cross_dataset.py run. Its stage 1 is read, and the other systems where it kept
their models (--save_models). It prints how many frames of the test speakers' neutral speech are called neutral, or
calm: in whole utterances; without the silence around them; joined with another neutral utterance; joined with an
emotional one. What falls from one to the next is due to silence, to the join, or to the emotion beside.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

sys.path.append(str(Path(__file__).parents[1] / "examples"))

from recipe.command_line import add_common_arguments, add_corpus_arguments, exit_with, parse, script_parser
from recipe.data.audio import read_waveform
from recipe.data.corpus import Utterance
from recipe.data.splices import CALM, NEUTRAL, Splice, speech_of
from recipe.experiment import Experiment, prepare
from recipe.models.folder import read_model
from recipe.training.model import EmotionModel
from recipe.training.over_time import calm_as_neutral
from recipe.training.plan import Training, make_plan
from recipe.training.systems import chosen_systems


def main() -> None:
    parser = script_parser(__doc__)
    add_corpus_arguments(parser, required=True)
    add_common_arguments(parser)
    options = parse(parser)
    experiment = prepare(options)
    plan = make_plan(options.seeds, experiment.folds, chosen_systems(options.systems, options.settings), options.output)
    found: dict[str, np.ndarray] = {}  # by system: for each place, frames called neutral, and all
    for block in plan:
        for training in block.trainings:
            if training.system.stage == 1 or (training.folder / "model").exists():
                model = trained(training, experiment)
                counts = np.array(
                    [neutral_frames(model, experiment, place(block.fold.test)) for place in PLACES.values()]
                )
                found[training.system.name] = found.get(training.system.name, 0) + counts
    print(f"\n| neutral frames called neutral, % | {' | '.join(PLACES)} |\n| --- |{' --- |' * len(PLACES)}")
    for name, counts in found.items():
        print(f"| {name} | {' | '.join(f'{100 * neutral / frames:.1f}' for neutral, frames in counts)} |")


def trained(training: Training, experiment: Experiment) -> EmotionModel:
    if training.system.stage != 1:
        return read_model(training.folder / "model")[0]
    pooling = training.system.build_pooling(experiment.backbone.dim, experiment.options.settings)
    model = EmotionModel(experiment.backbone, pooling, len(experiment.corpus.classes))
    model.load_learned_state(load_file(training.weights_file))
    return model.eval()


@torch.no_grad()
def neutral_frames(
    model: EmotionModel, experiment: Experiment, speech: Iterator[tuple[Tensor, float, float]]
) -> tuple[int, int]:
    """How many frames are called neutral, and how many are; speech is waveforms with the shares of the neutral part."""
    classes, right, total = experiment.corpus.classes, 0, 0
    for waveform, begin, end in speech:
        features = model.backbone.features(waveform)[None]
        pooled, _ = model(features, torch.ones(features.shape[:2], dtype=torch.bool))
        said = calm_as_neutral(model.classifier(pooled.frames)[0].softmax(-1).numpy(), classes).argmax(axis=1)
        frames = len(said)
        own = said[round(begin * frames) : round(end * frames)]
        right, total = right + int((own == classes.index(NEUTRAL)).sum()), total + len(own)
    return right, total


def whole(utterances: list[Utterance]) -> Iterator[tuple[Tensor, float, float]]:
    for utterance in neutral(utterances):
        yield read_waveform(utterance.path), 0, 1


def without_silence(utterances: list[Utterance]) -> Iterator[tuple[Tensor, float, float]]:
    for utterance in neutral(utterances):
        waveform = read_waveform(utterance.path)
        yield waveform[speech_of(waveform)], 0, 1


def beside_neutral(utterances: list[Utterance]) -> Iterator[tuple[Tensor, float, float]]:
    same = neutral(utterances)
    for number, utterance in enumerate(same):
        others = [other for other in same if other.speaker == utterance.speaker and other is not utterance]
        if others:
            yield from both_orders(utterance, others[number % len(others)])


def beside_emotion(utterances: list[Utterance]) -> Iterator[tuple[Tensor, float, float]]:
    for number, utterance in enumerate(neutral(utterances)):
        others = [
            other for other in utterances if other.speaker == utterance.speaker and other.label not in (NEUTRAL, CALM)
        ]
        yield from both_orders(utterance, others[7 * number % len(others)])


PLACES = {
    "whole utterances": whole,
    "without silence": without_silence,
    "beside neutral": beside_neutral,
    "beside emotion": beside_emotion,
}


def neutral(utterances: list[Utterance]) -> list[Utterance]:
    return [utterance for utterance in utterances if utterance.label == NEUTRAL]


def both_orders(one: Utterance, other: Utterance) -> Iterator[tuple[Tensor, float, float]]:
    """`one` first and last, and the part that it takes."""
    speech = {utterance.id: speech_of(read_waveform(utterance.path)) for utterance in (one, other)}
    for first, second in ((one, other), (other, one)):
        splice = Splice(first, second, speech[first.id], speech[second.id])
        change = splice.change / splice.seconds
        yield splice.waveform(), *((0, change) if first is one else (change, 1))


if __name__ == "__main__":
    exit_with(main)
