"""Fine-tune a speech encoder with transformers' Trainer, wholly or by LoRA, and call what was saved as a pipeline:

python examples/integrations/transformers_trainer.py my.csv --backbone facebook/wav2vec2-base --lora
"""

import argparse
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    AutoModelForAudioClassification,
    FeatureExtractionMixin,
    PreTrainedConfig,
    PreTrainedModel,
    Trainer,
    TrainingArguments,
    pipeline,
)
from transformers.modeling_outputs import SequenceClassifierOutput

from csv_corpus import SAMPLE_RATE, Utterance, read_csv, read_waveform, unweighted_accuracy
from framealign import (
    AlignmentObjective,
    CLSSelfAttentionPooling,
    attention_mask_lengths,
    conv_lengths,
    exact_under_padding,
    lengths_to_mask,
)


class SpeechEmotionConfig(PreTrainedConfig):
    model_type = "speech_emotion"
    sub_configs = {"encoder": AutoConfig}  # noqa: RUF012

    def __init__(self, encoder=None, eal_weight=0.05, fual_weight=0.05, **kwargs):
        super().__init__(**kwargs)  # first: it would write over what attention the encoder has chosen
        self.encoder = AutoConfig.for_model(**encoder) if isinstance(encoder, dict) else encoder
        self.eal_weight, self.fual_weight = eal_weight, fual_weight


class Head(nn.Module):
    """In one module, so that LoRA has one name to train in full."""

    def __init__(self, config: SpeechEmotionConfig) -> None:
        super().__init__()
        dim = config.encoder.hidden_size
        self.norm = nn.LayerNorm(dim)
        self.pooling = CLSSelfAttentionPooling(dim)
        self.classifier = nn.Linear(dim, config.num_labels)
        self.objective = AlignmentObjective(eal_weight=config.eal_weight, fual_weight=config.fual_weight)

    def forward(self, frames: Tensor, mask: Tensor, labels: Tensor | None) -> SequenceClassifierOutput:
        pooled = self.pooling(self.norm(frames), mask)
        if labels is None:
            return SequenceClassifierOutput(logits=self.classifier(pooled.utterance))
        found = self.objective(pooled, labels, self.classifier, mask)
        return SequenceClassifierOutput(loss=found.loss, logits=found.logits)


class SpeechEmotionModel(PreTrainedModel):
    """Any wav2vec 2.0, HuBERT, WavLM or Whisper, and the head."""

    config_class = SpeechEmotionConfig

    def __init__(self, config: SpeechEmotionConfig, encoder: PreTrainedModel | None = None) -> None:
        super().__init__(config)
        self.encoder = AutoModel.from_config(config.encoder) if encoder is None else encoder
        if config.encoder.is_encoder_decoder:  # Whisper
            self.encoder = self.encoder.get_encoder()
        else:
            exact_under_padding(self.encoder)
            self.encoder.feature_extractor.requires_grad_(False)
        self.head = Head(config)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        # transformers builds on the meta device, where what __init__ wrote is lost: parameters that no checkpoint
        # has are uninitialised memory until this line
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()

    # No **kwargs: with them Trainer takes it that the loss is divided for gradient accumulation already
    def forward(
        self,
        input_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        input_features: Tensor | None = None,
    ) -> SequenceClassifierOutput:
        if input_features is None:
            output = self.encoder(input_values, attention_mask=attention_mask)
            return self.head(output.last_hidden_state, output.frame_mask, labels)
        if attention_mask is None:
            raise ValueError("Whisper pads all to 30 s: use `return_attention_mask=True` in its feature extractor.")
        # its extractor, told by its configuration to make a mask, makes one of samples; told by its caller, of steps
        steps = attention_mask[:, :: attention_mask.shape[1] // input_features.shape[2]]
        frames = self.encoder(input_features).last_hidden_state
        lengths = conv_lengths(attention_mask_lengths(steps), kernel=3, stride=(1, 2), padding=1)
        return self.head(frames, lengths_to_mask(lengths, max_length=frames.shape[1]), labels)


AutoConfig.register("speech_emotion", SpeechEmotionConfig)
AutoModelForAudioClassification.register(SpeechEmotionConfig, SpeechEmotionModel)


def build(backbone: str, classes: list[str], **weights: float) -> tuple[SpeechEmotionModel, FeatureExtractionMixin]:
    # float32 whatever the file has, since transformers 5 would train in half precision what was saved in it; and
    # SpecAugment off: it changes frames at random, and refuses short utterances
    encoder = AutoModel.from_pretrained(backbone, dtype=torch.float32, apply_spec_augment=False)
    ids = {label: number for number, label in enumerate(classes)}
    config = SpeechEmotionConfig(encoder.config, label2id=ids, id2label=dict(enumerate(classes)), **weights)
    # said here, the mask is in the saved preprocessor too, where the pipeline finds it
    extractor = AutoFeatureExtractor.from_pretrained(backbone, return_attention_mask=True)
    return SpeechEmotionModel(config, encoder), extractor


def prepare(extractor: FeatureExtractionMixin, waveforms: list[Tensor]) -> dict[str, Tensor]:
    """A padded batch; the extractor is called, since its method `pad` leaves its normalisation out."""
    padding = "max_length" if "input_features" in extractor.model_input_names else "longest"  # Whisper's are 30 s long
    waveforms = [waveform.numpy() for waveform in waveforms]
    return dict(extractor(waveforms, sampling_rate=SAMPLE_RATE, padding=padding, return_tensors="pt"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("csv", type=Path, help="columns path, label and speaker")
    parser.add_argument("--backbone", default="facebook/wav2vec2-base", help="a name on the hub, or a folder")
    parser.add_argument("--lora", action="store_true", help="train the head, and of the encoder LoRA's matrices alone")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--out", type=Path, default=Path("runs/transformers"))
    options = parser.parse_args()

    corpus = read_csv(options.csv)
    torch.manual_seed(0)
    model, extractor = build(options.backbone, corpus.classes)
    if options.lora:
        model = get_peft_model(model, LoraConfig(target_modules=["q_proj", "v_proj"], modules_to_save=["head"]))

    def collate(utterances: list[Utterance]) -> dict[str, Tensor]:
        inputs = prepare(extractor, [read_waveform(utterance.path) for utterance in utterances])
        return {**inputs, "labels": torch.tensor([utterance.label for utterance in utterances])}

    trainer = Trainer(
        model,
        TrainingArguments(
            options.out / "checkpoints",
            num_train_epochs=options.epochs,
            learning_rate=1e-3 if options.lora else 2e-5,
            eval_strategy="epoch",
            save_strategy="epoch",
            save_total_limit=1,
            load_best_model_at_end=True,
            metric_for_best_model="UA",
            remove_unused_columns=False,
            label_names=["labels"],
            report_to="none",
        ),
        data_collator=collate,
        train_dataset=corpus.train,
        eval_dataset=corpus.validation,
        compute_metrics=lambda found: {
            "UA": unweighted_accuracy(torch.from_numpy(found.predictions).argmax(1), torch.from_numpy(found.label_ids))
        },
    )
    trainer.train()
    if options.lora:
        model = model.merge_and_unload()
    model.save_pretrained(options.out)
    extractor.save_pretrained(options.out)

    classify = pipeline("audio-classification", model=str(options.out))  # from the files alone
    waveforms = [read_waveform(utterance.path).numpy() for utterance in corpus.test]
    best = [answer[0]["label"] for answer in classify(waveforms, batch_size=8)]
    found = torch.tensor([corpus.classes.index(label) for label in best])
    labels = torch.tensor([utterance.label for utterance in corpus.test])
    print(f"UA {unweighted_accuracy(found, labels):.3f} (test speakers; chance {1 / len(corpus.classes):.3f})")


if __name__ == "__main__":
    main()
