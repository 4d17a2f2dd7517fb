"""wav2vec 2.0, HuBERT and WavLM from Hugging Face transformers, by name or local path."""

import logging
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, PreTrainedModel
from transformers.utils import logging as transformers_logging

from recipe.errors import RecipeError
from recipe.features.backbone import Backbone
from recipe.features.unread_mask import leave_mask_unread

FAMILY = ("wav2vec2", "hubert", "wavlm", "unispeech", "unispeech-sat", "data2vec-audio")


class HuggingFaceBackbone(Backbone):
    """A convolutional feature extractor, frozen, and the Transformer encoder behind it."""

    def __init__(self, model: PreTrainedModel, normalise: bool) -> None:
        super().__init__()
        self.model, self.normalise = model, normalise
        self.dim = model.config.hidden_size
        leave_mask_unread(self.model)
        self.model.feature_extractor.requires_grad_(False)
        if hasattr(self.model, "masked_spec_embed"):  # of SpecAugment, which is off: it would wait for a gradient
            self.model.masked_spec_embed.requires_grad_(False)

    @classmethod
    def load(cls, name: str) -> "HuggingFaceBackbone":
        """By a name on the hub or a local path; one line says why when it cannot be."""
        transformers_logging.set_verbosity_error()
        transformers_logging.disable_progress_bar()
        logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
        if Path(name).is_absolute() and not Path(name).is_dir():
            raise RecipeError(
                f"backbone {name}: there is no such folder; give one saved with save_pretrained, or a name."
            )
        try:
            config = AutoConfig.from_pretrained(name)
        except Exception as error:  # transformers and what it stands on raise a dozen kinds
            raise RecipeError(
                f"backbone {name}: cannot be loaded ({_first_line(error)}). Check the name and the network, give the "
                "path of a folder saved with save_pretrained, or try --backbone dvector, which needs neither."
            ) from None
        if config.model_type not in FAMILY:
            raise RecipeError(
                f"backbone {name}: is a {config.model_type} model, not one of {', '.join(FAMILY)}; "
                "the recipe needs an encoder that takes a waveform, such as facebook/wav2vec2-base."
            )
        # The paper does not say whether it drops layers or masks features while fine-tuning. Neither is done here:
        # masking fails on clips shorter than its span, and a dropped layer makes runs harder to compare.
        config.layerdrop, config.apply_spec_augment = 0.0, False
        try:
            model = AutoModel.from_pretrained(name, config=config)
            normalise = AutoFeatureExtractor.from_pretrained(name).do_normalize
        except Exception as error:
            raise RecipeError(
                f"backbone {name}: its configuration loads, but its weights or its preprocessor do not "
                f"({_first_line(error)}). Check the network, or save both again with save_pretrained."
            ) from None
        return cls(model, normalise)

    @torch.no_grad()
    def features(self, waveform: Tensor) -> Tensor:
        if self.normalise:
            waveform = (waveform - waveform.mean()) / (waveform.var(correction=0) + 1e-7).sqrt()
        self.model.feature_extractor.eval()
        features: Tensor = self.model.feature_extractor(waveform[None])
        return features[0].T

    def front_end(self) -> dict[str, Tensor]:
        return self.model.feature_extractor.state_dict()

    @property
    def preprocessing(self) -> str:
        config = self.model.config
        layers = (
            f"{config.feat_extract_norm} {config.feat_extract_activation} {config.conv_kernel} {config.conv_stride}"
        )
        return f"normalise {self.normalise}, {layers}"

    def encode(self, features: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.model.feature_projection(features)
        # Some return the normalised features too, for pre-training
        hidden = hidden[0] if isinstance(hidden, tuple) else hidden
        # A mask of integers would index, not mask: the encoder needs a bool
        return self.model.encoder(hidden, attention_mask=mask.bool()).last_hidden_state, mask


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


BACKBONE = HuggingFaceBackbone
