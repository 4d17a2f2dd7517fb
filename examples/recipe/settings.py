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
    """One of the two trainings.

    Args:
        epochs: passes over the training utterances
        backbone_rate: learning rate of what is tuned of the backbone
        attention_rate: learning rate of the pooling
        head_rate: learning rate of the classifier
    """

    epochs: int = 15
    backbone_rate: float = 2e-5
    attention_rate: float = 1e-4
    head_rate: float = 1e-3


@dataclass(frozen=True)
class Settings:
    """Hyperparameters; these defaults are those of wav2vec 2.0 and its relatives, other backbones have their own

    Args:
        stage1: Stage 1, attentive pooling and cross-entropy
        stage2: Stage 2, from stage 1's backbone with a new pooling and classifier
        frozen_layers: of a Transformer, from below; they run once and are kept, as the convolutions always are
        layers: whose output the frames are: a number, last, or weighted, the learned sum of all
        speed_perturbation: training utterances are also heard slower and faster by this share; 0 is off
        batch_size: utterances of one optimiser step, over all processes
        frame_budget: steps of the front end, padding included, that one process takes at once
        weight_decay: of AdamW
        clip_norm: gradients are clipped at this norm
        warmup: share of the steps in which learning rates rise; then they fall linearly to 0
        margin: of EAL, between cosines (paper)
        eal_weight: of EAL beside cross-entropy (paper)
        fual_weight: of FUAL beside cross-entropy (paper)
        negative_margin: of EAL's separation term, which the paper's equations do not have
        num_heads: of the encoder of CLS and self-attention pooling (paper)
        depth: its layers (paper)
    """

    stage1: Stage = Stage()
    stage2: Stage = Stage(epochs=10, backbone_rate=1e-5)
    frozen_layers: int = 0
    layers: str = "last"
    speed_perturbation: float = 0.0
    batch_size: int = 16
    # On a CPU, attention with dropout keeps memory that grows with the square of an utterance's length, so that two of
    # the longest are too much
    frame_budget: int = 3200
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    warmup: float = 0.1
    margin: float = 0.8
    eal_weight: float = 0.05
    fual_weight: float = 0.05
    negative_margin: float = 0.2
    num_heads: int = 4
    depth: int = 1

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
