"""In windows of what length a long recording is best heard, on speech whose classes are known over time:

python benchmarks/windows.py MODEL --corpus emodb --data PATH/TO/EmoDB --classes four --speakers 08

MODEL is a model folder of that corpus, and the speakers are some that it was not trained on (its card tells them). All
of a speaker's utterances, without the silence around them and in random order, are joined to talks of a minute. For
windows of several lengths, and for 28 s of each talk heard whole, it prints how many frames are of a wrong class, how
much of the segments' time is, and how far the frames' probabilities are from those of the 28 s heard whole (total
variation, 0 to 1): within 0.4 s of a seam, and further from all.
"""

import random
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

sys.path.append(str(Path(__file__).parents[1] / "examples"))

from recipe.command_line import add_corpus_arguments, exit_with, script_parser
from recipe.data.audio import SAMPLE_RATE, read_waveform
from recipe.data.corpora import read_corpus
from recipe.data.corpus import Utterance
from recipe.data.splices import speech_of
from recipe.errors import RecipeError
from recipe.inference.answer import Recording
from recipe.inference.recognizer import AHEAD, Recognizer
from recipe.inference.segments import course
from recipe.inference.windows import FRAME, windows

TALK, WHOLE, SEAM = 60, 28, 0.4  # seconds
LENGTHS = (2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0)


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument("model", type=Path)
    add_corpus_arguments(parser, required=True)
    parser.add_argument("--speakers", nargs="+", required=True)
    parser.add_argument("--talks", type=int, default=5, help="of each speaker")
    options = parser.parse_args()
    recognizer = Recognizer(options.model)
    classes = recognizer.description.classes
    corpus = read_corpus(options.corpus, options.data, options.classes)
    if set(corpus.classes) != set(classes):
        theirs = ", ".join(corpus.classes)
        raise RecipeError(
            f"{options.model}: its classes are {', '.join(classes)}, the corpus's {theirs}; see --classes."
        )
    made = [
        talk
        for speaker in options.speakers
        for talk in talks([u for u in corpus.utterances if u.speaker == speaker], classes, options.talks)
    ]
    whole = [frames(recognizer, waveform[: WHOLE * SAMPLE_RATE], WHOLE) for waveform, _ in made]
    print(f"{len(made)} talks of {TALK} s\n")
    print("| window, s | frames wrong, % | segments wrong, % | distance at a seam | elsewhere |\n|" + " --- |" * 5)
    print(row(f"{WHOLE}, whole", [(found, truth[: WHOLE * 50]) for found, (_, truth) in zip(whole, made, strict=True)]))
    for length in LENGTHS:
        found = [frames(recognizer, waveform, length) for waveform, _ in made]
        scored = [(one, truth) for one, (_, truth) in zip(found, made, strict=True)]
        print(row(f"{length:g}", scored, distances(whole, found, length)))


def talks(utterances: list[Utterance], classes: tuple[str, ...], count: int) -> list[tuple[Tensor, np.ndarray]]:
    """Waveforms, and the class of each frame."""
    found, dice = [], random.Random(0)
    for _ in range(count):
        parts, truth = [], []
        for utterance in dice.sample(utterances, len(utterances)):
            speech = (waveform := read_waveform(utterance.path))[speech_of(waveform)]
            parts.append(speech[: len(speech) // FRAME * FRAME])
            truth += [classes.index(utterance.label)] * (len(speech) // FRAME)
        found.append((torch.cat(parts)[: TALK * SAMPLE_RATE], np.array(truth)[: TALK * 50]))
    return found


def frames(recognizer: Recognizer, waveform: Tensor, length: float) -> np.ndarray:
    """The class probabilities of each frame."""
    cut = list(windows(iter([waveform]), whole=length, length=length))
    recording = Recording(len(cut), whole=True)
    for start in range(0, len(cut), AHEAD):
        recognizer.hear([(recording, window) for window in cut[start : start + AHEAD]])
    return recording.answer(recognizer.description.classes).frame_probabilities


def row(name: str, scored: list[tuple[np.ndarray, np.ndarray]], apart: tuple[float, float] | None = None) -> str:
    wrong = np.concatenate([found[: len(truth)].argmax(axis=1) != truth[: len(found)] for found, truth in scored])
    courses = [course(found) for found, _ in scored]
    pairs = zip(courses, scored, strict=True)
    astray = np.concatenate([labels[: len(truth)] != truth[: len(labels)] for labels, (_, truth) in pairs])
    cells = ["", ""] if apart is None else [f"{value:.3f}" for value in apart]
    return "| " + " | ".join([name, f"{100 * wrong.mean():.1f}", f"{100 * astray.mean():.1f}", *cells]) + " |"


def distances(whole: list[np.ndarray], found: list[np.ndarray], length: float) -> tuple[float, float]:
    """At a seam, and elsewhere."""
    count = min(map(len, whole))
    times = np.arange(count) / 50
    around = round(length * 50 / 4) / 50
    seams = np.arange(3 * around, WHOLE, 2 * around)
    near = np.abs(times[:, None] - seams).min(axis=1) < SEAM
    apart = np.stack([np.abs(a[:count] - b[:count]).sum(axis=1) / 2 for a, b in zip(whole, found, strict=True)])
    return float(apart[:, near].mean()), float(apart[:, ~near].mean())


if __name__ == "__main__":
    exit_with(main)
