"""The utterances that bench_recipe.py trains on: noise, which a clock does not hear, as long as IEMOCAP's."""

import os
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from recipe.data.audio import SAMPLE_RATE, SHORTEST
from recipe.data.corpora.iemocap import LABELS, labelled_turns
from recipe.data.corpus import FOUR_CLASSES, Corpus, Skipped, Utterance
from recipe.features.batches import training_steps, within_budget

# Of the lengths of IEMOCAP's 5531 turns of four classes, in seconds
UTTERANCES, LONGEST = 5531, 34.14
PERCENTILES = {0: 0.58, 5: 1.39, 25: 2.32, 50: 3.58, 75: 5.77, 95: 11.06, 99: 15.54, 100: LONGEST}
HOP = 320  # samples from a frame of wav2vec 2.0 to the next
DRAWS = 1001

Batches = list[list[int]]


class Sample(NamedTuple):
    """Some utterances of the corpus: their samples and frames, and the usual script's order of them."""

    samples: list[int]
    frames: list[int]
    order: list[int]

    def random_batches(self, size: int) -> Batches:
        return [self.order[start : start + size] for start in range(0, len(self.order), size)]


def corpus_seconds(release: Path | None) -> tuple[list[float], str]:
    """The lengths of IEMOCAP's utterances, and where they are from.

    `release` is the folder IEMOCAP_full_release, whose label files tell the lengths. Without it, a stand-in: as many
    lengths on a curve through the corpus's percentiles, log-normal from each to the next. It gives the corpus's mean,
    4.55 s, and the share of utterances above 6, 7.5, 10 and 15 s to 0.3 per cent of all.
    """
    if release is not None:
        skipped: list[Skipped] = []
        seconds: dict[str, float] = {}
        for turn, _ in labelled_turns(release, skipped):
            if turn["category"] in LABELS:
                start, end = turn.string[1 : turn.string.index("]")].split(" - ")
                seconds.setdefault(turn["id"], float(end) - float(start))
        if not seconds:
            raise SystemExit(f"--iemocap {release}: found no labelled turn of the four classes.")
        return sorted(seconds.values()), "IEMOCAP's label files"
    normal = statistics.NormalDist()
    known = [min(max(percent / 100, 0.5 / UTTERANCES), 1 - 0.5 / UTTERANCES) for percent in PERCENTILES]
    ranks = [(rank + 0.5) / UTTERANCES for rank in range(UTTERANCES)]
    logarithms = np.interp(
        [normal.inv_cdf(rank) for rank in ranks], [normal.inv_cdf(p) for p in known], np.log([*PERCENTILES.values()])
    )
    return np.exp(logarithms).tolist(), "a stand-in: a curve through the percentiles of IEMOCAP's lengths"


def iemocap_release() -> Path | None:
    """In the folder of the real corpora, as the tests find it."""
    root = Path(os.environ.get("FRAMEALIGN_DATA", Path(__file__).parents[2] / "shared" / "data"))
    release = root / "IEMOCAP_full_release"
    return release if release.is_dir() else None


def frame_count(samples: int) -> int:
    return (samples - SHORTEST) // HOP + 1


def take_sample(seconds: Sequence[float], count: int, batch_size: int) -> Sample:
    """`count` utterances that are to the whole corpus what an epoch is made of.

    They are steps of the recipe over the whole corpus. Its steps are ranked by their frames and cut into equal
    strata; of each stratum comes the step that is nearest to its mean. So batches by length waste as little as they
    do on the whole corpus, where a small sample of utterances would leave gaps between lengths. The usual script has
    the same utterances in the one of many random orders whose padding is the median.
    """
    samples = [round(SAMPLE_RATE * length) for length in seconds]
    frames = [frame_count(length) for length in samples]
    steps = [step for step in training_steps(frames, batch_size, seed=0, epoch=1) if len(step) == batch_size]
    totals = sorted((sum(frames[index] for index in step), step) for step in steps)
    strata = count // batch_size
    if strata < 1 or count % batch_size or strata > len(totals):
        raise SystemExit(f"--utterances {count}: must be a multiple of {batch_size}, the batch, within the corpus.")
    taken: list[int] = []
    for number in range(strata):
        stratum = totals[number * len(totals) // strata : (number + 1) * len(totals) // strata]
        mean = statistics.fmean(total for total, _ in stratum)
        taken += min(stratum, key=lambda pair: abs(pair[0] - mean))[1]
    taken.sort(key=samples.__getitem__)
    own = [frames[index] for index in taken]
    generator = torch.Generator().manual_seed(0)
    orders = [torch.randperm(count, generator=generator).tolist() for _ in range(DRAWS)]
    sample = Sample([samples[index] for index in taken], own, [])
    orders.sort(key=lambda order: padded_frames(sample._replace(order=order).random_batches(batch_size), own))
    return sample._replace(order=orders[DRAWS // 2])


def padded_frames(batches: Batches, frames: Sequence[int] | Mapping[int, int]) -> int:
    return sum(len(batch) * max(frames[index] for index in batch) for batch in batches)


def budget_batches(steps: Batches, frames: Sequence[int], frame_budget: int) -> list[Batches]:
    """The batches of each step, none of which may exceed the budget."""
    found = [within_budget(step, frames, frame_budget) for step in steps]
    for batch in (batch for step in found for batch in step):
        assert padded_frames([batch], frames) <= frame_budget, f"{batch} exceeds the budget of {frame_budget} frames"
    return found


def whole_corpus(frames: Sequence[int], batch_size: int, frame_budget: int, epochs: int = 10) -> dict[str, Any]:
    """Of batches of the whole corpus: the share of real frames in random ones and in the recipe's, whose largest must
    keep to the budget."""
    generator = torch.Generator().manual_seed(0)
    random = ordered = largest = 0
    for epoch in range(1, epochs + 1):
        order = torch.randperm(len(frames), generator=generator).tolist()
        random += padded_frames([order[i : i + batch_size] for i in range(0, len(order), batch_size)], frames)
        steps = training_steps(frames, batch_size, seed=0, epoch=epoch)
        sizes = [
            padded_frames([batch], frames) for step in budget_batches(steps, frames, frame_budget) for batch in step
        ]
        ordered, largest = ordered + sum(sizes), max([largest, *sizes])
    return {
        "real": {"random": epochs * sum(frames) / random, "by length": epochs * sum(frames) / ordered},
        "largest_batch": largest,
    }


def write_noise(folder: Path, samples: Sequence[int]) -> None:
    import soundfile  # here, for lengths alone need no reader of audio

    dice = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    for number, length in enumerate(samples):
        noise = np.clip(0.1 * dice.standard_normal(length), -1, 1)
        soundfile.write(folder / f"{number:04d}.wav", noise, SAMPLE_RATE, subtype="PCM_16")


def noise_corpus(folder: Path) -> Corpus:
    """What `write_noise` wrote, in its order; labels in turns."""
    utterances = [
        Utterance(path.stem, path, FOUR_CLASSES[int(path.stem) % len(FOUR_CLASSES)], speaker="noise")
        for path in sorted(folder.glob("*.wav"))
    ]
    return Corpus("noise", FOUR_CLASSES, utterances)


def describe(sample: Sample, batch_size: int, frame_budget: int) -> dict[str, Any]:
    frames = sample.frames
    ordered = budget_batches(training_steps(frames, batch_size, seed=0, epoch=1), frames, frame_budget)
    by_length = sum(padded_frames(step, frames) for step in ordered)
    return {
        "utterances": len(frames),
        "seconds": sum(sample.samples) / SAMPLE_RATE,
        "frames": sum(frames),
        "real": {
            "random": sum(frames) / padded_frames(sample.random_batches(batch_size), frames),
            "by length": sum(frames) / by_length,
        },
    }
