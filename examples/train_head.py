"""Train a head on the cached frames of a frozen speech encoder, with framealign's losses and without:

python examples/train_head.py my.csv --backbone facebook/wav2vec2-base

my.csv has a row for each utterance, with the columns path (from the folder of the file), label and speaker. All is
here, from top to bottom: the frames, padded batches and their mask, the pooling, the losses, the loop, the evaluation.
"""

import argparse
import copy
import csv
import hashlib
import re
from pathlib import Path

import soundfile
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from torchaudio.functional import resample
from tqdm import tqdm
from transformers import AutoFeatureExtractor, AutoModel

from framealign import AlignmentObjective, CLSSelfAttentionPooling, lengths_to_mask
from framealign.diagnostics import frame_agreement, frame_variance

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("csv", type=Path, help="columns path, label and speaker")
parser.add_argument("--backbone", default="facebook/wav2vec2-base", help="wav2vec 2.0, HuBERT, WavLM: a name, a folder")
parser.add_argument(
    "--cache", type=Path, default=Path("runs/frames"), help="frames are kept here, by their encoder's name"
)
parser.add_argument("--eal-weight", type=float, default=0.05, help="the paper's by default")
parser.add_argument("--fual-weight", type=float, default=0.05, help="likewise")
parser.add_argument("--epochs", type=int, default=20)
parser.add_argument("--seed", type=int, default=0)
options = parser.parse_args()
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

# ---- The utterances, and who of the speakers tests
try:
    rows = list(csv.DictReader(options.csv.read_text("utf-8-sig").splitlines()))
except OSError as error:
    parser.error(f"{options.csv}: {error.strerror}")
if not rows or not {"path", "label", "speaker"} <= rows[0].keys():
    parser.error(f"{options.csv}: needs the columns path, label and speaker, and a row for each utterance")
classes = sorted({row["label"] for row in rows})
speakers = sorted({row["speaker"] for row in rows})
if len(speakers) < 3 or len(classes) < 2:
    parser.error(f"{options.csv}: needs 3 speakers and 2 labels, has {len(speakers)} and {len(classes)}")
if missing := [row["path"] for row in rows if not (options.csv.parent / row["path"]).is_file()]:
    parser.error(f"{options.csv}: lists {missing[0]}, which is not there, as are {len(missing)} files in all")
every = min(5, len(speakers))  # a fifth of them tests, another chooses the epoch, and the others train
side_of = {speaker: {0: "test", 1: "validation"}.get(n % every, "train") for n, speaker in enumerate(speakers)}

# ---- The frames: each file goes through the encoder once, alone, since the padding of a batch may change them
folder = options.cache / re.sub(r"[^\w.-]+", "-", options.backbone)
folder.mkdir(parents=True, exist_ok=True)
data: dict[str, list[tuple[torch.Tensor, int]]] = {"train": [], "validation": [], "test": []}
encoder = None
for row in tqdm(rows, desc="frames", unit="file"):
    path = options.csv.parent / row["path"]
    cached = folder / f"{hashlib.sha256(path.read_bytes()).hexdigest()}.safetensors"
    if not cached.exists():
        if encoder is None:
            prepare = AutoFeatureExtractor.from_pretrained(options.backbone)
            encoder = AutoModel.from_pretrained(options.backbone).to(device).eval()
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
        waveform = resample(torch.from_numpy(samples).mean(dim=1), rate, prepare.sampling_rate)
        inputs = prepare(waveform.numpy(), sampling_rate=prepare.sampling_rate, return_tensors="pt").to(device)
        with torch.no_grad():
            frames = encoder(inputs["input_values"]).last_hidden_state[0]  # (frames, dim)
        save_file({"frames": frames.half().cpu()}, cached.with_suffix(".partial"))
        cached.with_suffix(".partial").rename(cached)  # what is there is whole
    data[side_of[row["speaker"]]].append((load_file(cached)["frames"].float(), classes.index(row["label"])))
dim = data["train"][0][0].shape[1]


def batch_of(utterances: list[tuple[torch.Tensor, int]]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Padded frames (batch, time, dim), their mask (batch, time), True at real frames, and labels (batch,)."""
    frames = pad_sequence([frames for frames, _ in utterances], batch_first=True)
    lengths = torch.tensor([len(frames) for frames, _ in utterances])
    mask = lengths_to_mask(lengths, max_length=frames.shape[1])
    return frames.to(device), mask.to(device), torch.tensor([label for _, label in utterances], device=device)


@torch.no_grad()
def evaluate(head: nn.ModuleDict, utterances: list[tuple[torch.Tensor, int]]) -> dict[str, float]:
    head.eval()
    found, agreement, variance = [], [], []
    for start in range(0, len(utterances), 32):
        frames, mask, _ = batch_of(utterances[start : start + 32])
        pooled = head["pooling"](head["norm"](frames), mask)
        logits = head["classifier"](pooled.utterance)
        found.append(logits.argmax(dim=1).cpu())
        agreement.append(frame_agreement(head["classifier"](pooled.frames), logits, mask))
        variance.append(frame_variance(pooled.frames, mask))
    labels = torch.tensor([label for _, label in utterances])
    hits = (torch.cat(found) == labels).float()
    recalls = [hits[labels == label].mean() for label in labels.unique()]
    return {
        "UA": torch.stack(recalls).mean().item(),  # mean of the classes' recalls
        "WA": hits.mean().item(),
        "frames that agree": torch.cat(agreement).mean().item(),
        "frame variance": torch.cat(variance).mean().item(),
    }


# ---- Two heads: the same but for the losses
counts = ", ".join(f"{len(utterances)} {side}" for side, utterances in data.items())
print(f"{len(rows)} utterances of {len(speakers)} speakers, {len(classes)} classes: {counts}; {dim} dimensions")
for name, eal_weight, fual_weight in (
    ("cross-entropy alone", 0.0, 0.0),
    (f"with EAL ({options.eal_weight:g}) and FUAL ({options.fual_weight:g})", options.eal_weight, options.fual_weight),
):
    torch.manual_seed(options.seed)
    head = nn.ModuleDict(
        {
            "norm": nn.LayerNorm(dim),  # encoders differ in the scale of their frames
            "pooling": CLSSelfAttentionPooling(dim, num_heads=4),
            "classifier": nn.Linear(dim, len(classes)),
        }
    ).to(device)
    # All in one; or EmotionalAttentionLoss and FrameUtteranceAlignmentLoss beside a cross-entropy of your own
    objective = AlignmentObjective(eal_weight=eal_weight, fual_weight=fual_weight)
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-4, weight_decay=0.01)
    best, state = -1.0, {}
    for epoch in range(1, options.epochs + 1):
        head.train()
        order = torch.randperm(len(data["train"])).tolist()
        for start in range(0, len(order), 16):
            frames, mask, labels = batch_of([data["train"][index] for index in order[start : start + 16]])
            pooled = head["pooling"](head["norm"](frames), mask)  # its utterance, weights, frames and CLS
            loss = objective(pooled, labels, head["classifier"], mask).loss
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(head.parameters(), 1.0)
            optimizer.step()
        ua = evaluate(head, data["validation"])["UA"]
        if ua >= best:  # the test speakers have no say in the epoch
            best, chosen, state = ua, epoch, copy.deepcopy(head.state_dict())
    head.load_state_dict(state)
    scores = ", ".join(f"{measure} {value:.1%}" for measure, value in evaluate(head, data["test"]).items())
    print(f"{name}: {scores} (test speakers; epoch {chosen} of {options.epochs})")
print(
    f"chance: UA {1 / len(classes):.1%}. One split and one seed tell little: see examples/recipe for tests over folds."
)
