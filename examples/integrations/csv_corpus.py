"""What the scripts beside this file share: a CSV of utterances, who of its speakers tests, waveforms, and UA."""

import csv
from pathlib import Path
from typing import NamedTuple

import soundfile
import torch
from torch import Tensor
from torchaudio.functional import resample

SAMPLE_RATE = 16_000


class Utterance(NamedTuple):
    path: Path
    label: int


class Corpus(NamedTuple):
    """No speaker is on two sides."""

    classes: list[str]
    train: list[Utterance]
    validation: list[Utterance]
    test: list[Utterance]


def read_csv(path: Path) -> Corpus:
    """Of a CSV with the columns path (from the folder of the file), label and speaker."""
    rows = list(csv.DictReader(path.read_text("utf-8-sig").splitlines()))
    if not rows or not {"path", "label", "speaker"} <= rows[0].keys():
        raise SystemExit(f"{path}: needs the columns path, label and speaker, and a row for each utterance")
    classes = sorted({row["label"] for row in rows})
    speakers = sorted({row["speaker"] for row in rows})
    if len(speakers) < 3 or len(classes) < 2:
        raise SystemExit(f"{path}: needs 3 speakers and 2 labels, has {len(speakers)} and {len(classes)}")
    every = min(5, len(speakers))  # a fifth of them tests, another chooses the epoch, and the others train
    corpus = Corpus(classes, [], [], [])
    for row in rows:
        place = speakers.index(row["speaker"]) % every
        side = {0: corpus.test, 1: corpus.validation}.get(place, corpus.train)
        side.append(Utterance(path.parent / row["path"], classes.index(row["label"])))
    return corpus


def read_waveform(path: Path) -> Tensor:
    """(samples,), one channel at 16 kHz. soundfile reads it, since torchaudio from 2.9 on needs torchcodec."""
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    return resample(torch.from_numpy(samples).mean(dim=1), rate, SAMPLE_RATE)


def unweighted_accuracy(found: Tensor, labels: Tensor) -> float:
    """UA: the mean of the classes' recalls, so that each class counts once."""
    hits = (found == labels).float()
    return torch.stack([hits[labels == label].mean() for label in labels.unique()]).mean().item()
