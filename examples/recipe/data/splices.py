"""Speech whose emotion changes at a known time: two utterances of one speaker, neutral and emotional, in one.

Corpora of acted speech have one label an utterance. Where two of them meet, the frame-level truth is known: Wang et
al. 2023, "Speech Emotion Diarization: Which Emotion Appears When?", train and test on such speech.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from recipe.data.audio import SAMPLE_RATE, read_waveform
from recipe.data.corpus import Utterance

NEUTRAL = "neutral"
CALM = "calm"  # of RAVDESS, whose authors made it a second baseline: no listener hears an emotion begin there
EACH = 4  # emotional utterances of each class and speaker that are spliced, so that large corpora take no longer
FADE = SAMPLE_RATE // 50  # samples in which one fades into the other
WINDOW, HOP = SAMPLE_RATE // 40, SAMPLE_RATE // 100  # 25 and 10 ms
SILENCE = -35.0  # dB below the loudest window


@dataclass(frozen=True)
class Splice:
    """Two utterances, first and second, each without the silence around it."""

    first: Utterance
    second: Utterance
    first_speech: slice  # samples
    second_speech: slice

    @property
    def id(self) -> tuple[str, str]:
        """No utterance has one like it: theirs are any text."""
        return self.first.id, self.second.id

    @property
    def speaker(self) -> str:
        return self.first.speaker

    @property
    def label(self) -> str:
        """The emotion, before or after which there is none."""
        return self.second.label if self.first.label == NEUTRAL else self.first.label

    @property
    def change(self) -> float:
        """Where the second begins, the middle of the fade, in seconds."""
        return (_length(self.first_speech) - FADE / 2) / SAMPLE_RATE

    @property
    def seconds(self) -> float:
        return (_length(self.first_speech) + _length(self.second_speech) - FADE) / SAMPLE_RATE

    def truth(self, frames: int) -> list[str]:
        """The class at the middle of each of so many frames."""
        times = [(frame + 0.5) * self.seconds / frames for frame in range(frames)]
        return [self.first.label if time < self.change else self.second.label for time in times]

    def waveform(self) -> Tensor:
        first = read_waveform(self.first.path)[self.first_speech]
        second = read_waveform(self.second.path)[self.second_speech]
        rise = torch.linspace(0, 1, FADE)
        fade = first[-FADE:] * (1 - rise) + second[:FADE] * rise
        return torch.cat([first[:-FADE], fade, second[FADE:]])


def splices(utterances: Sequence[Utterance], speech: Callable[[Utterance], slice]) -> list[Splice]:
    """Some of each emotion with a neutral utterance of the same speaker, in both orders.

    Args:
        speech: Where an utterance is not silent, in samples.
    """
    by_speaker: dict[str, dict[str, list[Utterance]]] = defaultdict(lambda: defaultdict(list))
    for utterance in utterances:
        by_speaker[utterance.speaker][utterance.label].append(utterance)
    found = []
    for of_speaker in by_speaker.values():
        neutral = of_speaker.pop(NEUTRAL, [])
        of_speaker.pop(CALM, None)
        emotional = [u for same in of_speaker.values() for u in evenly(same, EACH)]
        for number, utterance in enumerate(emotional if neutral else []):
            pair = neutral[number % len(neutral)], utterance
            for first, second in (pair, pair[::-1]):
                found.append(Splice(first, second, speech(first), speech(second)))
    return found


def within(found: Sequence[Splice], utterances: Sequence[Utterance]) -> list[Splice]:
    """Those of `utterances` alone."""
    ids = {utterance.id for utterance in utterances}
    return [splice for splice in found if {splice.first.id, splice.second.id} <= ids]


def evenly(items: list[Utterance], most: int) -> list[Utterance]:
    """At most so many, from all over the list."""
    count = min(most, len(items))
    return [items[number * len(items) // count] for number in range(count)]


def speech_of(waveform: Tensor) -> slice:
    """From the first window that is not silent to the last one."""
    steps = waveform.unfold(0, WINDOW, HOP) if len(waveform) >= WINDOW else waveform[None]
    level = 20 * steps.square().mean(1).sqrt().clamp_min(1e-9).log10()
    loud = (level > level.max() + SILENCE).nonzero()
    return slice(int(loud[0]) * HOP, min(int(loud[-1]) * HOP + WINDOW, len(waveform)))


def _length(speech: slice) -> int:
    return speech.stop - speech.start
