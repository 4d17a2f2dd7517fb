"""Pool openSMILE's low-level descriptors, eGeMAPS every 10 ms, with attention that is learned:

python examples/integrations/opensmile_features.py my.csv

openSMILE's own functionals, means and percentiles over an utterance, are fixed. No encoder, no download, no GPU.
"""

import argparse
from pathlib import Path

import opensmile
import torch
from torch import Tensor, nn

from csv_corpus import SAMPLE_RATE, Utterance, read_csv, read_waveform, unweighted_accuracy
from framealign import AlignmentObjective, CLSSelfAttentionPooling, Objective, lengths_to_mask

Example = tuple[Tensor, int]
SMILE = opensmile.Smile(opensmile.FeatureSet.eGeMAPSv02, opensmile.FeatureLevel.LowLevelDescriptors)


def descriptors(waveform: Tensor) -> Tensor:
    """(frames, 25), of one utterance alone: openSMILE takes no lengths."""
    frames = torch.tensor(SMILE.process_signal(waveform.numpy(), SAMPLE_RATE).to_numpy())
    return frames[~frames.isnan().any(dim=1)]  # of less than 60 ms it gives one frame of NaN: no frame, then


def collate(examples: list[Example]) -> tuple[Tensor, Tensor, Tensor]:
    frames = nn.utils.rnn.pad_sequence([frames for frames, _ in examples], batch_first=True)
    mask = lengths_to_mask([len(frames) for frames, _ in examples], max_length=frames.shape[1])
    return frames, mask, torch.tensor([label for _, label in examples])


class SpeechEmotionModel(nn.Module):
    def __init__(self, training_frames: Tensor, num_classes: int, hidden_dim: int = 64) -> None:
        super().__init__()
        # descriptors are in hertz, decibels, semitones
        self.register_buffer("mean", training_frames.mean(dim=0))
        self.register_buffer("deviation", training_frames.std(dim=0).clamp_min(1e-6))
        self.project = nn.Sequential(nn.Linear(training_frames.shape[1], hidden_dim), nn.GELU())
        self.pooling = CLSSelfAttentionPooling(hidden_dim)
        self.classifier = nn.Linear(hidden_dim, num_classes)
        self.objective = AlignmentObjective(eal_weight=0.05, fual_weight=0.05)

    def forward(self, frames: Tensor, mask: Tensor, labels: Tensor) -> Objective:
        projected = self.project((frames - self.mean) / self.deviation)
        return self.objective(self.pooling(projected, mask), labels, self.classifier, mask)


@torch.no_grad()
def evaluate(model: SpeechEmotionModel, examples: list[Example]) -> float:
    model.eval()
    frames, mask, labels = collate(examples)
    return unweighted_accuracy(model(frames, mask, labels).logits.argmax(dim=1), labels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("csv", type=Path, help="columns path, label and speaker")
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--out", type=Path, default=Path("runs/opensmile"))
    options = parser.parse_args()

    corpus = read_csv(options.csv)

    def examples_of(utterances: list[Utterance]) -> list[Example]:
        return [(descriptors(read_waveform(utterance.path)), utterance.label) for utterance in utterances]

    train, validation, test = map(examples_of, (corpus.train, corpus.validation, corpus.test))
    torch.manual_seed(0)
    model = SpeechEmotionModel(torch.cat([frames for frames, _ in train]), len(corpus.classes))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    options.out.mkdir(parents=True, exist_ok=True)
    best = -1.0
    for _ in range(options.epochs):
        model.train()
        for numbers in torch.randperm(len(train)).split(16):
            loss = model(*collate([train[number] for number in numbers])).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if (ua := evaluate(model, validation)) > best:
            best = ua
            torch.save(model.state_dict(), options.out / "best.pt")
    model.load_state_dict(torch.load(options.out / "best.pt"))
    print(f"UA {evaluate(model, test):.3f} (test speakers; chance {1 / len(corpus.classes):.3f})")


if __name__ == "__main__":
    main()
