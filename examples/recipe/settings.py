"""Hyperparameters.

The paper's text gives: AdamW with separate learning rates for backbone, attention and head; a frozen CNN; CLS
pooling with 4 heads, depth 1 and no dropout; margin 0.8 and both loss weights 0.05. It does not give the
learning rates, the batch size, the number of epochs, weight decay or clipping: those below are ours. A checkpoint's
own dropout, inside a Hugging Face encoder, stays as its configuration says.
"""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Stage:
    epochs: int
    backbone_rate: float
    attention_rate: float  # of the pooling
    head_rate: float  # of the classifier


@dataclass(frozen=True)
class Settings:
    stage1: Stage
    stage2: Stage
    batch_size: int = 16
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    warmup: float = 0.1  # share of the steps in which the learning rates rise; then they fall linearly to 0
    margin: float = 0.8  # paper
    eal_weight: float = 0.05  # paper
    fual_weight: float = 0.05  # paper
    num_heads: int = 4  # paper
    depth: int = 1  # paper


_FINE_TUNING = Settings(
    stage1=Stage(epochs=15, backbone_rate=2e-5, attention_rate=1e-4, head_rate=1e-3),
    stage2=Stage(epochs=10, backbone_rate=1e-5, attention_rate=1e-4, head_rate=1e-3),
)
# A new linear layer must catch up with a pretrained encoder in a few epochs on a thousand utterances; and the less
# the attention learns on so few speakers, the better it does on others
_DVECTOR = Settings(
    stage1=Stage(epochs=8, backbone_rate=5e-5, attention_rate=1e-4, head_rate=5e-3),
    stage2=Stage(epochs=5, backbone_rate=2e-5, attention_rate=1e-4, head_rate=5e-3),
)
# The demo's speech is simple, and its five folds should be done in minutes
DEMO = replace(_DVECTOR, stage1=replace(_DVECTOR.stage1, epochs=5), stage2=replace(_DVECTOR.stage2, epochs=4))
_TINY = Settings(
    stage1=Stage(epochs=3, backbone_rate=1e-3, attention_rate=1e-3, head_rate=1e-3),
    stage2=Stage(epochs=3, backbone_rate=1e-3, attention_rate=1e-3, head_rate=1e-3),
)


def default_settings(backbone: str) -> Settings:
    return {"dvector": _DVECTOR, "tiny": _TINY}.get(backbone, _FINE_TUNING)
