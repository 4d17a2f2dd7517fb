"""A corpus of tones with its CSV, and small encoders of random weights, for the scripts that read both."""

import csv
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model

SPEAKERS, LABELS = ("ann", "ben", "cid", "dot"), ("high", "low")


def save_tones(root: Path) -> Path:
    """Two takes of each label by each speaker, the second at another rate, and the CSV that lists them."""
    dice = np.random.default_rng(0)
    rows = []
    for speaker, (number, label), take in product(SPEAKERS, enumerate(LABELS), range(2)):
        rate = (16_000, 22_050)[take]
        seconds = np.arange(int(rate * dice.uniform(0.2, 0.4))) / rate
        soundfile.write(root / f"{speaker}-{label}-{take}.wav", 0.1 * np.sin(2000 * (number + 1) * seconds), rate)
        rows.append({"path": f"{speaker}-{label}-{take}.wav", "label": label, "speaker": speaker})
    return write_csv(root / "all.csv", rows)


def write_csv(path: Path, rows: Sequence[dict[str, str]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def save_encoder(folder: Path, seed: int, **values: Any) -> Path:
    """As facebook/wav2vec2-base, its group norm over time too, but for the size."""
    torch.manual_seed(seed)
    config = Wav2Vec2Config(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        conv_dim=(8,) * 7,
        num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2,
        **values,
    )
    Wav2Vec2Model(config).save_pretrained(folder)
    Wav2Vec2FeatureExtractor().save_pretrained(folder)
    return folder
