"""Train a downstream model on the frames of an s3prl upstream, its filterbank, which needs no download:

python examples/integrations/s3prl_downstream.py my.csv

It runs with espnet-s3prl, ESPnet's copy of s3prl under the same name: s3prl 0.4.18 calls parts of torchaudio that are
gone.
"""

import argparse
from pathlib import Path

import torch
from s3prl.nn import Featurizer, S3PRLUpstream
from torch import Tensor, nn

from csv_corpus import Utterance, read_csv, read_waveform, unweighted_accuracy
from framealign import AlignmentObjective, CLSSelfAttentionPooling, Objective, conv_lengths, lengths_to_mask

WINDOW, STEP = 400, 160  # samples of the filterbank: 25 ms every 10 ms, and no window reaches beyond the end


class SpeechEmotionModel(nn.Module):
    """As s3prl's `UpstreamDownstreamModel`, but for the mask: s3prl's lengths count frames that are none."""

    def __init__(self, num_classes: int, hidden_dim: int = 256) -> None:
        super().__init__()
        self.upstream = S3PRLUpstream("fbank")
        self.featurizer = Featurizer(self.upstream)
        self.project = nn.Linear(self.featurizer.output_size, hidden_dim)
        self.pooling = CLSSelfAttentionPooling(hidden_dim)
        self.classifier = nn.Linear(hidden_dim, num_classes)
        self.objective = AlignmentObjective(eal_weight=0.05, fual_weight=0.05)

    def forward(self, waveforms: Tensor, samples: Tensor, labels: Tensor) -> Objective:
        with torch.no_grad():
            states, too_long = self.upstream(waveforms, samples)
        frames, _ = self.featurizer(states, too_long)
        mask = lengths_to_mask(conv_lengths(samples, WINDOW, STEP), max_length=frames.shape[1])
        return self.objective(self.pooling(self.project(frames), mask), labels, self.classifier, mask)


def collate(utterances: list[Utterance]) -> tuple[Tensor, Tensor, Tensor]:
    waveforms = [read_waveform(utterance.path) for utterance in utterances]
    samples = torch.tensor([len(waveform) for waveform in waveforms])
    labels = torch.tensor([utterance.label for utterance in utterances])
    return nn.utils.rnn.pad_sequence(waveforms, batch_first=True), samples, labels


@torch.no_grad()
def evaluate(model: SpeechEmotionModel, utterances: list[Utterance]) -> float:
    model.eval()
    found = [model(*collate([utterance])).logits.argmax(dim=1) for utterance in utterances]
    return unweighted_accuracy(torch.cat(found), torch.tensor([utterance.label for utterance in utterances]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("csv", type=Path, help="columns path, label and speaker")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--out", type=Path, default=Path("runs/s3prl"))
    options = parser.parse_args()

    corpus = read_csv(options.csv)
    torch.manual_seed(0)
    model = SpeechEmotionModel(len(corpus.classes))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    options.out.mkdir(parents=True, exist_ok=True)
    best = -1.0
    for _ in range(options.epochs):
        model.train()
        for numbers in torch.randperm(len(corpus.train)).split(8):
            loss = model(*collate([corpus.train[number] for number in numbers])).loss
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        if (ua := evaluate(model, corpus.validation)) > best:
            best = ua
            torch.save(model.state_dict(), options.out / "best.pt")
    model.load_state_dict(torch.load(options.out / "best.pt"))
    print(f"UA {evaluate(model, corpus.test):.3f} (test speakers; chance {1 / len(corpus.classes):.3f})")


if __name__ == "__main__":
    main()
