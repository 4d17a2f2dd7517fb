"""Hyperparameters.

The paper's text gives: AdamW with separate learning rates for backbone, attention and head; a frozen CNN; CLS
pooling with 4 heads, depth 1 and no dropout; margin 0.8 and both loss weights 0.05. It does not give the
learning rates, the batch size, the number of epochs, weight decay or clipping: those below are ours. A checkpoint's
own dropout, inside a Hugging Face encoder, stays as its configuration says.
"""

from dataclasses import asdict, dataclass, replace

from recipe.errors import RecipeError


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
    batch_size: int = 16  # utterances of one optimiser step, over all processes
    # Steps of the front end, padding included, that one process takes at once. On a CPU, attention with dropout keeps
    # memory that grows with the square of an utterance's length, so that two of the longest are too much
    frame_budget: int = 3200
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    warmup: float = 0.1  # share of the steps in which the learning rates rise; then they fall linearly to 0
    margin: float = 0.8  # paper
    eal_weight: float = 0.05  # paper
    fual_weight: float = 0.05  # paper
    negative_margin: float = 0.2  # of the separation term, which the paper's equations do not have
    num_heads: int = 4  # paper
    depth: int = 1  # paper


_FINE_TUNING = Settings(
    stage1=Stage(epochs=15, backbone_rate=2e-5, attention_rate=1e-4, head_rate=1e-3),
    stage2=Stage(epochs=10, backbone_rate=1e-5, attention_rate=1e-4, head_rate=1e-3),
)
# New layers must catch up with a pretrained encoder in a few epochs on a thousand utterances. Stage 2's rate of the
# attention is the best on EmoDB's validation speakers; at 1e-4 all systems with a CLS end the same, unmoved
_DVECTOR = Settings(
    stage1=Stage(epochs=6, backbone_rate=5e-5, attention_rate=1e-4, head_rate=5e-3),
    stage2=Stage(epochs=3, backbone_rate=2e-5, attention_rate=1e-3, head_rate=5e-3),
    frame_budget=8000,  # an LSTM's memory grows with the length, and its steps are of 10 ms
)
# The demo's speech is simple, and all of its systems should be done in minutes
_DEMO = replace(_DVECTOR, stage1=replace(_DVECTOR.stage1, epochs=4), stage2=replace(_DVECTOR.stage2, epochs=2))
_TINY = Settings(
    stage1=Stage(epochs=3, backbone_rate=1e-3, attention_rate=1e-3, head_rate=1e-3),
    stage2=Stage(epochs=3, backbone_rate=1e-3, attention_rate=1e-3, head_rate=1e-3),
)


def default_settings(backbone: str, demo: bool = False) -> Settings:
    if demo and backbone == "dvector":
        return _DEMO
    return {"dvector": _DVECTOR, "tiny": _TINY}.get(backbone, _FINE_TUNING)


def check(settings: Settings) -> Settings:
    """`settings`, unless a value makes no sense."""
    values = asdict(settings)
    stages = {f"{stage}.{name}": value for stage in ("stage1", "stage2") for name, value in values.pop(stage).items()}
    for name, value in {**values, **stages}.items():
        least = 1 if isinstance(value, int) else 0
        if name in ("margin", "negative_margin"):
            if not -1 <= value <= 1:
                raise RecipeError(f"--{name} {value}: a margin between cosines lies between -1 and 1.")
        elif value < least:
            raise RecipeError(f"--{name} {value}: must be at least {least}.")
    if settings.warmup > 1:
        raise RecipeError(f"--warmup {settings.warmup}: is a share of the steps, at most 1.")
    return settings
