"""The encoder of Whisper, of any size: a log-mel spectrum, two convolutions, a Transformer."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, gelu, pad
from transformers import WhisperFeatureExtractor, WhisperForAudioClassification
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from framealign import conv_lengths, lengths_to_mask
from recipe.data.audio import SAMPLE_RATE
from recipe.features.backbone import Input
from recipe.features.checkpoints import configuration, preprocessor, weights
from recipe.features.transformer import TransformerBackbone
from recipe.settings import Settings, Stage

MODEL_TYPES = ("whisper",)


class WhisperBackbone(TransformerBackbone):
    """Utterances are encoded at their own length: Whisper pads each to 30 s, and computes all of it.

    Positions are cut to the utterance and attention is masked. One of more than 30 s is encoded in equal windows,
    which do not see each other, and joined again.
    """

    def __init__(self, encoder: WhisperEncoder, extractor: WhisperFeatureExtractor, settings: Settings) -> None:
        super().__init__(encoder, encoder.config.d_model, settings)
        self.extractor = extractor
        self.longest = encoder.config.max_source_positions

    settings = Settings(
        stage1=Stage(epochs=5, backbone_rate=1e-4, attention_rate=1e-4, head_rate=1e-3),
        stage2=Stage(epochs=3, backbone_rate=5e-5, attention_rate=1e-4, head_rate=1e-3),
        batch_size=8,
    )

    @classmethod
    def settings_for(cls, name: str) -> Settings:
        """One layer is tuned, above the lower half: emotion is found there, and not behind the last one."""
        lower = configuration(name).encoder_layers // 2
        return replace(cls.settings, frozen_layers=lower, layers=str(lower + 1))

    @classmethod
    def load(cls, name: str, settings: Settings) -> "WhisperBackbone":
        config = configuration(name)
        if config.architectures == [WhisperEncoder.__name__]:
            encoder = weights(WhisperEncoder, name, config)
        else:  # the one class of transformers that reads the encoder of a whole model, and nothing else of it
            encoder = weights(WhisperForAudioClassification, name, config, needed="encoder.").encoder
        return cls(encoder, preprocessor(name), settings)

    def write_architecture(self, folder: Path) -> None:
        self.model.config.save_pretrained(folder)
        self.extractor.save_pretrained(folder)

    @classmethod
    def untrained(cls, folder: Path, settings: Settings) -> "WhisperBackbone":
        return cls(WhisperEncoder(configuration(str(folder))), preprocessor(str(folder)), settings)

    @property
    def stack(self) -> nn.ModuleList:
        return self.model.layers

    @property
    def final_norm(self) -> nn.Module | None:
        return self.model.layer_norm

    def convolutions(self) -> list[nn.Module]:
        return [self.model.conv1, self.model.conv2]

    def embeddings(self) -> list[nn.Module]:
        return [self.model.embed_positions]

    @property
    def preprocessing(self) -> str:
        return f"{super().preprocessing}, {self.extractor.to_json_string()}"

    def log_mel(self, waveform: Tensor) -> Tensor:
        """(samples,) to (bins, steps of 10 ms): what the extractor gives for it in 30 s, without the padding."""
        extractor, samples = self.extractor, len(waveform)
        # as much silence as the last windows see; behind 30 s, which is not padded, they see a reflection
        length = min(samples + extractor.n_fft, max(samples, extractor.n_samples))
        padded = pad(waveform.cpu(), (0, length - samples))
        found = extractor(padded.numpy(), padding=False, truncation=False, sampling_rate=SAMPLE_RATE)
        steps = -(-samples // extractor.hop_length)
        return torch.as_tensor(found["input_features"][0], device=waveform.device)[:, :steps]

    def convolve(self, waveform: Tensor) -> Tensor:
        steps = gelu(self.model.conv1(self.log_mel(waveform)[None]))
        return gelu(self.model.conv2(steps))[0].T

    @property
    def whole_input(self) -> Input:
        return Input(
            "features",
            ("batch", self.model.config.num_mel_bins, "steps"),
            "log-mel spectrum, as transformers' WhisperFeatureExtractor gives it; steps of 10 ms",
            shortest=3,
            longest=2 * self.longest,
        )

    def raw(self, waveform: Tensor) -> Tensor:
        return self.log_mel(waveform)

    def convolve_padded(self, raw: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        padded = ~mask[:, None]  # both convolutions see zeros there, as at the end of an utterance alone
        hidden = gelu(self.model.conv1(raw.masked_fill(padded, 0))).masked_fill(padded, 0)
        steps = gelu(self.model.conv2(hidden)).transpose(1, 2)
        lengths = conv_lengths(mask.sum(1), kernel=3, stride=2, padding=1)
        return steps, lengths_to_mask(lengths, max_length=steps.shape[1])

    def embed(self, steps: Tensor, mask: Tensor) -> Tensor:
        _, place = windows(mask, self.longest)
        hidden = steps + self.model.embed_positions(place)
        return dropout(hidden, self.model.dropout, self.training and not self.frozen)

    def through(self, layers: nn.ModuleList, hidden: Tensor, mask: Tensor) -> Iterator[Tensor]:
        seen = mask[:, None, None, :]
        if mask.shape[1] > self.longest:
            window, _ = windows(mask, self.longest)
            seen = seen & (window[:, None, :, None] == window[:, None, None, :])
        for layer in layers:
            hidden = layer(hidden, seen)
            yield hidden


def windows(mask: Tensor, longest: int) -> tuple[Tensor, Tensor]:
    """The window of each step of padded utterances, and its place there, both (batch, time).

    An utterance has as few windows as hold it, and they differ by one step at most.
    """
    lengths = mask.sum(1, keepdim=True).clamp_min(1)
    counts = (lengths + longest - 1) // longest
    steps = torch.arange(mask.shape[1], device=mask.device)
    window = (steps * counts // lengths).minimum(counts - 1)
    first = (window * lengths + counts - 1) // counts
    return window, (steps - first).clamp_max(longest - 1)  # beyond it are only padded ones


BACKBONE = WhisperBackbone
