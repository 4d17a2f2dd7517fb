"""wav2vec 2.0 and its relatives from Hugging Face transformers: a CNN over the waveform, then a Transformer."""

from collections.abc import Iterator
from pathlib import Path

from torch import Tensor, nn
from transformers import AutoModel, PreTrainedModel, Wav2Vec2FeatureExtractor

from framealign import conv_lengths, lengths_to_mask
from framealign.wav2vec2 import GroupNormOfRealSteps
from recipe.features.backbone import Input
from recipe.features.checkpoints import configuration, preprocessor, weights
from recipe.features.transformer import TransformerBackbone
from recipe.settings import Settings

MODEL_TYPES = ("wav2vec2", "hubert", "wavlm", "unispeech", "unispeech-sat", "data2vec-audio")


class Wav2Vec2Backbone(TransformerBackbone):
    def __init__(self, model: PreTrainedModel, normalise: bool, settings: Settings | None = None) -> None:
        self.stable = getattr(model.config, "do_stable_layer_norm", False)  # normalised before each layer
        super().__init__(model, model.config.hidden_size, settings or self.settings)
        self.normalise = normalise
        if hasattr(model, "masked_spec_embed"):  # of SpecAugment, which is off: it would wait for a gradient
            model.masked_spec_embed.requires_grad_(False)

    @classmethod
    def load(cls, name: str, settings: Settings) -> "Wav2Vec2Backbone":
        config = configuration(name)
        # The paper does not say whether it drops layers or masks features while fine-tuning. Neither is done here:
        # masking fails on clips shorter than its span, and a dropped layer makes runs harder to compare.
        config.layerdrop, config.apply_spec_augment = 0.0, False
        model = weights(AutoModel, name, config, unused=["masked_spec_embed"])
        return cls(model, preprocessor(name).do_normalize, settings)

    def write_architecture(self, folder: Path) -> None:
        self.model.config.save_pretrained(folder)
        Wav2Vec2FeatureExtractor(do_normalize=self.normalise).save_pretrained(folder)

    @classmethod
    def untrained(cls, folder: Path, settings: Settings) -> "Wav2Vec2Backbone":
        model = AutoModel.from_config(configuration(str(folder)))
        return cls(model, preprocessor(str(folder)).do_normalize, settings)

    @property
    def stack(self) -> nn.ModuleList:
        return self.model.encoder.layers

    @property
    def final_norm(self) -> nn.Module | None:
        return self.model.encoder.layer_norm if self.stable else None

    def convolutions(self) -> list[nn.Module]:
        return [self.model.feature_extractor]

    def embeddings(self) -> list[nn.Module]:
        encoder = self.model.encoder
        modules = [self.model.feature_projection, encoder.pos_conv_embed, encoder.dropout]
        return modules if self.stable else [*modules, encoder.layer_norm]

    @property
    def preprocessing(self) -> str:
        config = self.model.config
        layers = (
            f"{config.feat_extract_norm} {config.feat_extract_activation} {config.conv_kernel} {config.conv_stride}"
        )
        return f"{super().preprocessing}, normalise {self.normalise}, {layers}"

    def convolve(self, waveform: Tensor) -> Tensor:
        if self.normalise:
            waveform = (waveform - waveform.mean()) / (waveform.var(correction=0) + 1e-7).sqrt()
        steps: Tensor = self.model.feature_extractor(waveform[None])
        return steps[0].T

    def why_not_whole(self, suffix: str) -> str | None:
        if self.model.config.model_type == "wavlm" and suffix == ".pt2":
            return "torch.export takes it that WavLM's attention is never asked about one utterance; write .onnx"
        return None

    @property
    def whole_input(self) -> Input:
        kernels, strides = self.model.config.conv_kernel, self.model.config.conv_stride
        shortest = 2  # steps
        for kernel, stride in zip(reversed(kernels), reversed(strides), strict=True):
            shortest = (shortest - 1) * stride + kernel
        return Input("waveforms", ("batch", "samples"), "16 kHz, mono, from -1 to 1", shortest, longest=2**24)

    def raw(self, waveform: Tensor) -> Tensor:
        return waveform

    def convolve_padded(self, raw: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        lengths = mask.sum(1)
        waveforms = raw.masked_fill(~mask, 0)
        if self.normalise:
            count = lengths.clamp_min(1)[:, None]
            centred = (waveforms - waveforms.sum(1, keepdim=True) / count).masked_fill(~mask, 0)
            waveforms = centred / (centred.square().sum(1, keepdim=True) / count + 1e-7).sqrt()
        steps = waveforms[:, None]
        for layer in self.model.feature_extractor.conv_layers:
            lengths = conv_lengths(lengths, layer.conv.kernel_size, layer.conv.stride)
            norm = getattr(layer, "layer_norm", None)
            if isinstance(norm, nn.GroupNorm):  # over time; all others work step by step
                steps = layer.activation(GroupNormOfRealSteps(norm).over_real_steps(layer.conv(steps), lengths))
            else:
                steps = layer(steps)
        return steps.transpose(1, 2), lengths_to_mask(lengths, max_length=steps.shape[2])

    def embed(self, steps: Tensor, mask: Tensor) -> Tensor:
        hidden = self.model.feature_projection(steps)
        # Some return the normalised features too, for pre-training
        hidden = hidden[0] if isinstance(hidden, tuple) else hidden
        encoder, padded = self.model.encoder, ~mask[..., None]
        hidden = hidden.masked_fill(padded, 0)
        hidden = hidden + self.positions(hidden, padded)
        return encoder.dropout(hidden if self.stable else encoder.layer_norm(hidden))

    def positions(self, hidden: Tensor, padded: Tensor) -> Tensor:
        """data2vec has convolution upon convolution, which would carry into speech what padding became in the first."""
        embedding = self.model.encoder.pos_conv_embed
        if not hasattr(embedding, "layers"):
            return embedding(hidden)
        for layer in embedding.layers:
            hidden = layer(hidden.masked_fill(padded, 0).transpose(1, 2)).transpose(1, 2)
        return hidden

    def through(self, layers: nn.ModuleList, hidden: Tensor, mask: Tensor) -> Iterator[Tensor]:
        if self.model.config.model_type == "wavlm":
            first = self.stack[0].attention  # alone knows the positions, of which all layers make their own bias
            bias = first.compute_bias(hidden.shape[1], hidden.shape[1]).repeat(hidden.shape[0], 1, 1)
            for layer in layers:
                hidden, _ = layer(hidden, attention_mask=mask, position_bias=bias)
                yield hidden
        else:
            for layer in layers:
                hidden = layer(hidden, attention_mask=mask[:, None, None, :])
                yield hidden


BACKBONE = Wav2Vec2Backbone
