"""A randomly initialised wav2vec 2.0 of a quarter of a million parameters, for tests."""

import torch
from transformers import Wav2Vec2Config, Wav2Vec2Model

from recipe.features.backbones.wav2vec2 import Wav2Vec2Backbone
from recipe.settings import Settings, Stage


class TinyBackbone(Wav2Vec2Backbone):
    settings = Settings(
        stage1=Stage(epochs=3, backbone_rate=1e-3, attention_rate=1e-3, head_rate=1e-3),
        stage2=Stage(epochs=3, backbone_rate=1e-3, attention_rate=1e-3, head_rate=1e-3),
    )
    precision = "no"

    @classmethod
    def load(cls, name: str, settings: Settings) -> "TinyBackbone":
        config = Wav2Vec2Config(
            hidden_size=96,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=256,
            conv_dim=(32,) * 7,
            num_conv_pos_embeddings=16,
            num_conv_pos_embedding_groups=4,
            layerdrop=0.0,
            apply_spec_augment=False,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # the same weights in every run, as a download would have
            return cls(Wav2Vec2Model(config), normalise=True, settings=settings)


BACKBONE = TinyBackbone
