"""Fine-tune a speech encoder with SpeechBrain: its wav2vec 2.0, made exact under padding, in a Brain of few lines:

python examples/integrations/speechbrain_brain.py my.csv --backbone facebook/wav2vec2-base
"""

import argparse
from pathlib import Path
from typing import Any

import speechbrain as sb
import torch
from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.integrations.huggingface.wav2vec2 import Wav2Vec2
from speechbrain.utils.checkpoints import Checkpointer
from speechbrain.utils.data_pipeline import provides, takes
from torch import Tensor, nn

from csv_corpus import Utterance, read_csv, read_waveform, unweighted_accuracy
from framealign import (
    AlignmentObjective,
    CLSSelfAttentionPooling,
    Pooled,
    conv_lengths,
    exact_under_padding,
    lengths_to_mask,
    relative_lengths,
)


def load_encoder(backbone: str, folder: Path) -> Wav2Vec2:
    """SpeechBrain's own, for wav2vec 2.0, HuBERT and WavLM."""
    encoder = Wav2Vec2(backbone, str(folder), freeze_feature_extractor=True)
    encoder.normalize_wav = False  # over padding too: `dataset_of` does it
    exact_under_padding(encoder.model.float())  # in float32 whatever the file has
    return encoder


def dataset_of(utterances: list[Utterance]) -> DynamicItemDataset:
    @takes("path")
    @provides("waveform")
    def waveform_of(path: Path) -> Tensor:
        waveform = read_waveform(path)
        return nn.functional.layer_norm(waveform, waveform.shape)

    items = {str(number): utterance._asdict() for number, utterance in enumerate(utterances)}
    return DynamicItemDataset(items, dynamic_items=[waveform_of], output_keys=["waveform", "label"])


class SpeechEmotionBrain(sb.Brain):
    def compute_forward(self, batch: Any, stage: sb.Stage) -> tuple[Pooled, Tensor]:
        waveforms, shares = batch.to(self.device).waveform
        frames = self.modules.encoder(waveforms, shares)
        # not `shares` of the frames: those would count frames of padding
        samples = relative_lengths(shares, waveforms.shape[1])
        lengths = conv_lengths(samples, self.hparams.config.conv_kernel, self.hparams.config.conv_stride)
        mask = lengths_to_mask(lengths, max_length=frames.shape[1])
        return self.modules.pooling(self.modules.norm(frames), mask), mask

    def compute_objectives(self, predictions: tuple[Pooled, Tensor], batch: Any, stage: sb.Stage) -> Tensor:
        pooled, mask = predictions
        found = self.hparams.objective(pooled, batch.label, self.modules.classifier, mask)
        self.found.append(found.logits.argmax(dim=1))
        self.labels.append(batch.label)
        return found.loss

    def on_stage_start(self, stage: sb.Stage, epoch: int | None = None) -> None:
        self.found, self.labels = [], []

    def on_stage_end(self, stage: sb.Stage, stage_loss: float, epoch: int | None = None) -> None:
        self.ua = unweighted_accuracy(torch.cat(self.found), torch.cat(self.labels))
        if stage == sb.Stage.VALID:
            self.checkpointer.save_and_keep_only(meta={"UA": self.ua}, max_keys=["UA"])


def build(encoder: Wav2Vec2, num_classes: int, folder: Path, **options: Any) -> SpeechEmotionBrain:
    config = encoder.model.config
    modules = {
        "encoder": encoder,
        "norm": nn.LayerNorm(config.hidden_size),
        "pooling": CLSSelfAttentionPooling(config.hidden_size),
        "classifier": nn.Linear(config.hidden_size, num_classes),
    }
    return SpeechEmotionBrain(
        modules,
        opt_class=lambda parameters: torch.optim.AdamW(parameters, lr=2e-5),
        hparams={"objective": AlignmentObjective(eal_weight=0.05, fual_weight=0.05), "config": config},
        checkpointer=Checkpointer(folder, recoverables=modules),
        run_opts=options,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("csv", type=Path, help="columns path, label and speaker")
    parser.add_argument("--backbone", default="facebook/wav2vec2-base", help="a name on the hub, or a folder")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--out", type=Path, default=Path("runs/speechbrain"))
    options = parser.parse_args()

    corpus = read_csv(options.csv)
    torch.manual_seed(0)
    encoder = load_encoder(options.backbone, options.out)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    brain = build(encoder, len(corpus.classes), options.out / "checkpoints", device=device)
    brain.fit(
        range(1, options.epochs + 1),
        dataset_of(corpus.train),
        dataset_of(corpus.validation),
        train_loader_kwargs={"batch_size": 8, "shuffle": True},
        valid_loader_kwargs={"batch_size": 8},
    )
    brain.evaluate(dataset_of(corpus.test), max_key="UA", test_loader_kwargs={"batch_size": 8})
    print(f"UA {brain.ua:.3f} (test speakers; chance {1 / len(corpus.classes):.3f})")


if __name__ == "__main__":
    main()
