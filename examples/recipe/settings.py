"""Hyperparameters.

The paper's text gives: AdamW with separate learning rates for backbone, attention and head; a frozen CNN; CLS
pooling with 4 heads, depth 1 and no dropout; margin 0.8 and both loss weights 0.05. It does not give the
learning rates, the batch size, the number of epochs, weight decay or clipping: those below are ours. A checkpoint's
own dropout, inside a Hugging Face encoder, stays as its configuration says.
"""

from dataclasses import asdict, dataclass

from recipe.errors import RecipeError


@dataclass(frozen=True)
class Stage:
    epochs: int
    backbone_rate: float
    attention_rate: float  # of the pooling
    head_rate: float  # of the classifier


@dataclass(frozen=True)
class Settings:
    """The defaults are those of a fine-tuned Transformer; a backbone may have its own."""

    stage1: Stage = Stage(epochs=15, backbone_rate=2e-5, attention_rate=1e-4, head_rate=1e-3)
    stage2: Stage = Stage(epochs=10, backbone_rate=1e-5, attention_rate=1e-4, head_rate=1e-3)
    frozen_layers: int = 0  # of a Transformer; they run once and are kept, as the convolutions below them always are
    layers: str = "last"  # whose output the frames are: a number, last, or weighted: the learned sum of all
    # Training utterances are also played slower and faster by this share, and higher and lower with it
    speed_perturbation: float = 0.0
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

    @property
    def speeds(self) -> tuple[float, ...]:
        """At which training utterances are heard, their own first."""
        share = self.speed_perturbation
        return (1.0, 1 - share, 1 + share) if share else (1.0,)


def check(settings: Settings) -> Settings:
    """`settings`, unless a value makes no sense."""
    values = asdict(settings)
    stages = {f"{stage}.{name}": value for stage in ("stage1", "stage2") for name, value in values.pop(stage).items()}
    layers = values.pop("layers")
    if layers not in ("last", "weighted") and not layers.isdecimal():
        raise RecipeError(f"--layers {layers}: must be last, weighted, or the number of a layer.")
    for name, value in {**values, **stages}.items():
        least = 1 if isinstance(value, int) and name != "frozen_layers" else 0
        if name in ("margin", "negative_margin"):
            if not -1 <= value <= 1:
                raise RecipeError(f"--{name} {value}: a margin between cosines lies between -1 and 1.")
        elif value < least:
            raise RecipeError(f"--{name} {value}: must be at least {least}.")
    if settings.speed_perturbation > 0.5:
        raise RecipeError(f"--speed_perturbation {settings.speed_perturbation}: is a share of the speed, at most 0.5.")
    if settings.warmup > 1:
        raise RecipeError(f"--warmup {settings.warmup}: is a share of the steps, at most 1.")
    return settings
