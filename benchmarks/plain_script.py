"""The usual script: wav2vec 2.0 fine-tuned for emotion recognition as people write it, in PyTorch and transformers.

Random batches, waveforms padded with zeros to the longest, the whole model in every step, attentive pooling by hand, a
linear layer, cross-entropy, AdamW over all parameters. bench_recipe.py adds its measures to it one by one.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Wav2Vec2Model


class Classifier(nn.Module):
    def __init__(self, wav2vec2: Wav2Vec2Model, num_classes: int) -> None:
        super().__init__()
        self.wav2vec2 = wav2vec2
        self.score = nn.Linear(wav2vec2.config.hidden_size, 1)
        self.classifier = nn.Linear(wav2vec2.config.hidden_size, num_classes)

    def forward(self, waveforms: Tensor) -> Tensor:
        return self.classify(self.wav2vec2(waveforms).last_hidden_state)

    def classify(self, frames: Tensor) -> Tensor:
        weights = self.score(frames).softmax(dim=1)
        logits: Tensor = self.classifier((weights * frames).sum(dim=1))
        return logits


class CachedClassifier(Classifier):
    """From features of the CNN, (batch, steps, width)."""

    def forward(self, features: Tensor) -> Tensor:
        hidden, _ = self.wav2vec2.feature_projection(features)
        return self.classify(self.wav2vec2.encoder(hidden).last_hidden_state)


class NoGradClassifier(CachedClassifier):
    """The CNN, which is frozen, under no_grad."""

    def forward(self, waveforms: Tensor) -> Tensor:
        with torch.no_grad():
            features = self.wav2vec2.feature_extractor(waveforms).transpose(1, 2)
        return super().forward(features)


def train_epoch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    steps: Sequence[Sequence[Sequence[int]]],
    load: Callable[[Sequence[int]], tuple[Tensor, Tensor]],
    bf16: bool,
) -> None:
    """`steps` are the batches of each step, of which the usual script has one."""
    model.train()
    device = next(model.parameters()).device
    for batches in steps:
        count = sum(len(batch) for batch in batches)
        optimizer.zero_grad()
        for batch in batches:
            inputs, labels = load(batch)
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                loss = F.cross_entropy(model(inputs.to(device)), labels.to(device), reduction="sum") / count
            loss.backward()
        optimizer.step()
