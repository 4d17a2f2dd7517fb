"""Fine-tune a speech encoder in a loop of one's own, with framealign; `plain_pytorch_before.py` is the same without:

python examples/integrations/plain_pytorch_after.py my.csv --backbone facebook/wav2vec2-base
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import AutoFeatureExtractor, AutoModel

import framealign
from csv_corpus import SAMPLE_RATE, Utterance, read_csv, read_waveform, unweighted_accuracy


class SpeechEmotionModel(nn.Module):
    def __init__(self, backbone: str, num_classes: int) -> None:
        super().__init__()
        # in float32 whatever the file has, and without SpecAugment, which refuses short utterances
        encoder = AutoModel.from_pretrained(backbone, dtype=torch.float32, mask_time_prob=0.0)
        self.encoder = framealign.exact_under_padding(encoder)
        dim = encoder.config.hidden_size
        self.pooling = framealign.CLSSelfAttentionPooling(dim)
        self.objective = framealign.AlignmentObjective(eal_weight=0.05, fual_weight=0.05)
        self.classifier = nn.Linear(dim, num_classes)

    def forward(self, inputs: dict[str, Tensor], labels: Tensor) -> tuple[Tensor, Tensor]:
        output = self.encoder(**inputs)
        pooled = self.pooling(output.last_hidden_state, output.frame_mask)
        found = self.objective(pooled, labels, self.classifier, output.frame_mask)
        return found.loss, found.logits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("csv", type=Path, help="columns path, label and speaker")
    parser.add_argument("--backbone", default="facebook/wav2vec2-base", help="a name on the hub, or a folder")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--out", type=Path, default=Path("runs/plain"))
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    corpus = read_csv(options.csv)
    torch.manual_seed(0)
    model = SpeechEmotionModel(options.backbone, len(corpus.classes)).to(device)
    prepare = AutoFeatureExtractor.from_pretrained(options.backbone, return_attention_mask=True)

    def batch_of(utterances: list[Utterance]) -> tuple[dict[str, Tensor], Tensor]:
        waveforms = [read_waveform(utterance.path).numpy() for utterance in utterances]
        inputs = prepare(waveforms, sampling_rate=SAMPLE_RATE, padding=True, return_tensors="pt").to(device)
        return dict(inputs), torch.tensor([utterance.label for utterance in utterances], device=device)

    @torch.no_grad()
    def evaluate(utterances: list[Utterance]) -> float:
        model.eval()
        batches = [batch_of(utterances[start : start + 8]) for start in range(0, len(utterances), 8)]
        found = torch.cat([model(*batch)[1].argmax(dim=1) for batch in batches])
        return unweighted_accuracy(found, torch.cat([labels for _, labels in batches]))

    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-5)
    options.out.mkdir(parents=True, exist_ok=True)
    best = -1.0
    for _ in range(options.epochs):
        model.train()
        for numbers in torch.randperm(len(corpus.train)).split(8):
            loss, _ = model(*batch_of([corpus.train[number] for number in numbers]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if (ua := evaluate(corpus.validation)) > best:
            best = ua
            torch.save(model.state_dict(), options.out / "best.pt")
    model.load_state_dict(torch.load(options.out / "best.pt"))
    print(f"UA {evaluate(corpus.test):.3f} (test speakers; chance {1 / len(corpus.classes):.3f})")


if __name__ == "__main__":
    main()
