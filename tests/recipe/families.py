"""Small random models of every family that the recipe takes, saved as the hub has them."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    Data2VecAudioConfig,
    Data2VecAudioModel,
    HubertConfig,
    HubertModel,
    PreTrainedConfig,
    PreTrainedModel,
    UniSpeechConfig,
    UniSpeechModel,
    UniSpeechSatConfig,
    UniSpeechSatModel,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2Model,
    WavLMConfig,
    WavLMModel,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperModel,
)

from recipe.features.backbone import Backbone

LAYERS = 3
CONVOLUTIONAL = {
    "hidden_size": 32,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "conv_dim": (16,) * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}
STABLE = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}
WHISPER = {
    "d_model": 32,
    "encoder_layers": LAYERS,
    "encoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "decoder_layers": 1,
    "decoder_attention_heads": 4,
    "decoder_ffn_dim": 64,
    "vocab_size": 60,
    "num_mel_bins": 20,
    "max_source_positions": 100,  # 2 s
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
}


@dataclass(frozen=True)
class Family:
    config: type[PreTrainedConfig]
    model: type[PreTrainedModel]
    options: dict

    def build(self) -> PreTrainedModel:
        """Its weights are larger than at the start of a training, so that every part is felt."""
        model = self.model(self.config(**self.options))
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "embed_positions" not in name:
                    parameter += 0.1 * torch.randn_like(parameter)
        return model.eval()


FAMILIES = {
    "wav2vec2": Family(Wav2Vec2Config, Wav2Vec2Model, CONVOLUTIONAL),
    "wav2vec2-stable": Family(Wav2Vec2Config, Wav2Vec2Model, {**CONVOLUTIONAL, **STABLE}),
    "hubert": Family(HubertConfig, HubertModel, CONVOLUTIONAL),
    "hubert-stable": Family(HubertConfig, HubertModel, {**CONVOLUTIONAL, **STABLE}),
    "wavlm": Family(WavLMConfig, WavLMModel, CONVOLUTIONAL),
    "wavlm-stable": Family(WavLMConfig, WavLMModel, {**CONVOLUTIONAL, **STABLE}),
    "unispeech": Family(UniSpeechConfig, UniSpeechModel, CONVOLUTIONAL),
    "unispeech-sat": Family(UniSpeechSatConfig, UniSpeechSatModel, CONVOLUTIONAL),
    "data2vec-audio": Family(
        Data2VecAudioConfig,
        Data2VecAudioModel,
        {**CONVOLUTIONAL, "num_conv_pos_embeddings": 2, "conv_pos_kernel_size": 7},
    ),
    "whisper": Family(WhisperConfig, WhisperForConditionalGeneration, WHISPER),
    "whisper-model": Family(WhisperConfig, WhisperModel, WHISPER),
}


def save(name: str, folder: Path, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """Save a model of that family; what was saved."""
    torch.manual_seed(0)
    model = FAMILIES[name].build().to(dtype)
    save_model(model, folder)
    return model


def save_model(model: PreTrainedModel, folder: Path) -> None:
    model.save_pretrained(folder)
    if model.config.model_type == "whisper":
        WhisperFeatureExtractor(feature_size=20, chunk_length=2).save_pretrained(folder)
    else:
        Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(folder)


def change_json(path: Path, **values: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def rename_weights(folder: Path, old: str, new: str) -> None:
    path = folder / "model.safetensors"
    weights = load_file(path)
    save_file({name.replace(old, new): value for name, value in weights.items()}, path, metadata={"format": "pt"})


def assert_same_as_alone(backbone: Backbone, waveforms: Sequence[Tensor], frames: Tensor, mask: Tensor) -> None:
    """The frames of a padded batch are those of each utterance by itself."""
    for waveform, padded, real in zip(waveforms, frames, mask, strict=True):
        alone, alone_mask = backbone([waveform])
        assert alone_mask.all()
        assert alone.shape[1] == real.sum() >= 1
        torch.testing.assert_close(padded[real], alone[0], rtol=1e-5, atol=1e-5)
