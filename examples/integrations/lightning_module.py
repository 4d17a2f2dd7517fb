"""Fine-tune a speech encoder with Lightning, on one device or on several:

python examples/integrations/lightning_module.py my.csv --backbone facebook/wav2vec2-base --devices 2
"""

import argparse
from pathlib import Path

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader, DistributedSampler
from torchmetrics.classification import MulticlassConfusionMatrix
from transformers import AutoFeatureExtractor, AutoModel

from csv_corpus import SAMPLE_RATE, Corpus, Utterance, read_csv, read_waveform
from framealign import AlignmentObjective, CLSSelfAttentionPooling, Objective, exact_under_padding

Batch = tuple[dict[str, Tensor], Tensor]


class SpeechEmotionModule(lightning.LightningModule):
    def __init__(self, backbone: str, num_classes: int, eal_weight: float = 0.05, fual_weight: float = 0.05) -> None:
        super().__init__()
        self.save_hyperparameters()
        # without what leaves a parameter out of a step, for whose gradient DistributedDataParallel would wait; and in
        # float32 whatever the file has
        encoder = AutoModel.from_pretrained(backbone, dtype=torch.float32, mask_time_prob=0.0, layerdrop=0.0)
        self.encoder = exact_under_padding(encoder)
        self.encoder.feature_extractor.requires_grad_(False)
        self.encoder.train()  # transformers gives it in eval mode, and Lightning leaves modes as they are
        dim = self.encoder.config.hidden_size
        self.norm = nn.LayerNorm(dim)
        self.pooling = CLSSelfAttentionPooling(dim)
        self.classifier = nn.Linear(dim, num_classes)
        self.objective = AlignmentObjective(eal_weight=eal_weight, fual_weight=fual_weight)
        self.confusion = MulticlassConfusionMatrix(num_classes)

    def forward(self, inputs: dict[str, Tensor], labels: Tensor) -> Objective:
        output = self.encoder(**inputs)
        pooled = self.pooling(self.norm(output.last_hidden_state), output.frame_mask)
        return self.objective(pooled, labels, self.classifier, output.frame_mask)

    def training_step(self, batch: Batch, index: int) -> Tensor:
        return self(*batch).loss

    def validation_step(self, batch: Batch, index: int) -> None:
        self.confusion.update(self(*batch).logits, batch[1])

    def on_validation_epoch_end(self) -> None:
        # not `self.log` of each batch's UA: their mean is not that of all
        of_each = self.confusion.compute()  # (classes, classes), labels first
        self.confusion.reset()
        there = of_each.sum(dim=1) > 0
        self.log("UA", (of_each.diag()[there] / of_each.sum(dim=1)[there]).mean(), sync_dist=True, prog_bar=True)

    test_step, on_test_epoch_end = validation_step, on_validation_epoch_end

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=2e-5)


class SpeechEmotionData(lightning.LightningDataModule):
    def __init__(self, corpus: Corpus, backbone: str, batch_size: int) -> None:
        super().__init__()
        self.corpus, self.batch_size = corpus, batch_size
        self.extractor = AutoFeatureExtractor.from_pretrained(backbone)

    def collate(self, utterances: list[Utterance]) -> Batch:
        waveforms = [read_waveform(utterance.path).numpy() for utterance in utterances]
        inputs = self.extractor(
            waveforms, sampling_rate=SAMPLE_RATE, padding=True, return_attention_mask=True, return_tensors="pt"
        )
        return dict(inputs), torch.tensor([utterance.label for utterance in utterances])

    def loader(self, utterances: list[Utterance], **options: object) -> DataLoader[Utterance]:
        return DataLoader(utterances, self.batch_size, collate_fn=self.collate, **options)

    def train_dataloader(self) -> DataLoader[Utterance]:
        if self.trainer.world_size == 1:
            return self.loader(self.corpus.train, shuffle=True)
        return self.loader(self.corpus.train, sampler=DistributedSampler(self.corpus.train))

    def val_dataloader(self) -> DataLoader[Utterance]:
        return self.loader(self.corpus.validation)

    def test_dataloader(self) -> DataLoader[Utterance]:
        return self.loader(self.corpus.test)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("csv", type=Path, help="columns path, label and speaker")
    parser.add_argument("--backbone", default="facebook/wav2vec2-base", help="a name on the hub, or a folder")
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=8, help="of each device")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--out", type=Path, default=Path("runs/lightning"))
    options = parser.parse_args()

    corpus = read_csv(options.csv)
    lightning.seed_everything(0)
    model = SpeechEmotionModule(options.backbone, len(corpus.classes))
    data = SpeechEmotionData(corpus, options.backbone, options.batch_size)
    best = ModelCheckpoint(options.out, filename="best", monitor="UA", mode="max", enable_version_counter=False)
    trainer = lightning.Trainer(
        devices=options.devices,
        strategy="ddp" if options.devices > 1 else "auto",
        # Lightning's would share out validation and test too, and repeat utterances until the shares are equal;
        # here every process sees all of them, and the counts of all are added up: the recalls are the same
        use_distributed_sampler=False,
        max_epochs=options.epochs,
        gradient_clip_val=1.0,
        callbacks=[best],
        logger=False,
    )
    trainer.fit(model, data)
    ua = trainer.test(model, data, ckpt_path="best")[0]["UA"]
    if trainer.is_global_zero:
        print(f"UA {ua:.3f} (test speakers; chance {1 / len(corpus.classes):.3f})")


if __name__ == "__main__":
    main()
