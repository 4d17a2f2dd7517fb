"""Train an emotion classifier on your own speech: python examples/train_head.py my.csv

my.csv has a row for each utterance and the columns path, label and speaker; a path is relative to the CSV. A pretrained
speech encoder, which is not trained, turns every file into frames once; they are kept on disk. On these frames a small
head is trained twice, with cross-entropy alone and with EAL and FUAL, and is tested on speakers it has never heard.
Read it from top to bottom, and copy what you need.
"""

import argparse
import copy
import csv
import hashlib
import random
import sys
from pathlib import Path
from typing import NoReturn

import soundfile
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torchaudio.functional import resample

from framealign import AlignmentObjective, CLSSelfAttentionPooling, lengths_to_mask
from framealign.diagnostics import diagnose


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("csv", type=Path, help="columns path, label, speaker")
    parser.add_argument("--backbone", default="facebook/wav2vec2-base", help="name on the Hugging Face hub, or a folder")
    parser.add_argument("--layer", type=int, default=6, help="whose frames to take; emotion is rarely in the last")
    parser.add_argument("--cache", type=Path, default=Path("frames"), help="folder for the frames")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--eal-weight", type=float, default=0.05)
    parser.add_argument("--fual-weight", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=0, help="of the split into speakers, and of the training")
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    rows = read_rows(options.csv)
    classes = sorted({row["label"] for row in rows})
    labels = torch.tensor([classes.index(row["label"]) for row in rows])
    sides = split(rows, options.seed)
    paths = [(options.csv.parent / row["path"]).resolve() for row in rows]
    frames = cached_frames(paths, options.backbone, options.layer, options.cache, device)
    for side, members in sides.items():
        speakers = sorted({rows[i]["speaker"] for i in members})
        print(f"{side}: {len(members)} utterances of {len(speakers)} speakers, {', '.join(speakers[:8])}", end="")
        print(", ..." if len(speakers) > 8 else "")

    test = sides["test"]
    print(f"\n{len(test)} test utterances    UA     WA   agreement  variance")
    for name, weights in [("cross-entropy alone", (0, 0)), ("with EAL and FUAL", (options.eal_weight, options.fual_weight))]:
        head = train(frames, labels, sides, *weights, options.epochs, options.seed, device)
        ua, wa, agreement, variance = evaluate(head, frames, labels, test, device)
        print(f"{name:<20} {ua:6.1%} {wa:6.1%}   {agreement:6.1%}   {variance:8.3f}")


if __name__ == "__main__":
    main()
