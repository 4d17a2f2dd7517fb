"""The systems that are compared: a pooling and the weights of the losses, each on the same stage-1 backbone."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from torch import nn

from framealign import (
    AlignmentObjective,
    AttentivePooling,
    AttentiveStatisticsPooling,
    CLSSelfAttentionPooling,
    MaxPooling,
    MeanPooling,
    SelfAttentionPooling,
    StatisticsPooling,
)
from recipe.errors import RecipeError
from recipe.settings import Settings, Stage

POOLINGS: dict[str, Callable[[int, Settings], nn.Module]] = {
    "attentive": lambda dim, _: AttentivePooling(dim),
    "attentive, one vector": lambda dim, _: AttentivePooling(dim, hidden_dim=None),
    "self-attention": lambda dim, settings: SelfAttentionPooling(dim, settings.num_heads, settings.depth),
    "cls": lambda dim, settings: CLSSelfAttentionPooling(dim, settings.num_heads, settings.depth),
    "cls, cosine": lambda dim, settings: CLSSelfAttentionPooling(
        dim, settings.num_heads, settings.depth, similarity="cosine"
    ),
    "cls, its own output": lambda dim, settings: CLSSelfAttentionPooling(
        dim, settings.num_heads, settings.depth, aggregate="cls"
    ),
    "cls, both outputs": lambda dim, settings: CLSSelfAttentionPooling(
        dim, settings.num_heads, settings.depth, aggregate="sum"
    ),
    "mean": lambda dim, _: MeanPooling(dim),
    "max": lambda dim, _: MaxPooling(dim),
    "statistics": lambda dim, _: StatisticsPooling(dim),
    "attentive statistics": lambda dim, _: AttentiveStatisticsPooling(dim),
}


@dataclass(frozen=True)
class System:
    name: str  # as tables and results have it
    pooling: str = "cls"
    eal_weight: float = 0.0
    fual_weight: float = 0.0
    margin: float = 0.8
    negative_margin: float | None = None
    target: str = "utterance"  # of FUAL
    detach: str | None = None  # the side of FUAL that does not learn from it
    baseline: str | None = None  # the system that it is tested against
    stage: int = 2

    @property
    def slug(self) -> str:
        """The name as a folder and on the command line: "CLS + EAL" is cls-eal."""
        spelt = re.sub(r"-(?=\d)", "minus ", self.name.lower())
        return re.sub(r"[^a-z0-9.]+", "-", spelt).strip("-")

    def stage_settings(self, settings: Settings) -> Stage:
        return settings.stage1 if self.stage == 1 else settings.stage2

    def epochs(self, settings: Settings) -> int:
        return self.stage_settings(settings).epochs if self.stage else 0

    def build_pooling(self, dim: int, settings: Settings) -> nn.Module:
        return POOLINGS[self.pooling](dim, settings)

    def objective(self) -> AlignmentObjective:
        return AlignmentObjective(
            margin=self.margin,
            eal_weight=self.eal_weight,
            fual_weight=self.fual_weight,
            negative_margin=self.negative_margin,
            target=self.target,
            detach=self.detach,
        )


STAGE_1 = System("stage 1", "attentive", stage=1)
CLS = "CLS pooling"
ATTENTIVE = System("attentive pooling", "attentive, one vector", baseline=CLS)
PROPOSED = "CLS + EAL + FUAL"
CLASSICAL = System("MFCC statistics, SVM", pooling="none", stage=0)


def paper_systems(settings: Settings) -> list[System]:
    """Table 3: two readings of the self-attention baseline, the CLS baseline, and the losses on top of it."""
    eal, fual, margin = settings.eal_weight, settings.fual_weight, settings.margin
    return [
        ATTENTIVE,
        System("self-attention pooling", "self-attention", baseline=CLS),
        System(CLS),
        eal_system(margin, eal, settings),
        System("CLS + FUAL", fual_weight=fual, margin=margin, baseline=CLS),
        System(PROPOSED, eal_weight=eal, fual_weight=fual, margin=margin, baseline=CLS),
    ]


def further_systems(settings: Settings) -> list[System]:
    """Beyond the paper: poolings without attention to the CLS, and EAL with a term that separates the classes."""
    eal, fual, margin = settings.eal_weight, settings.fual_weight, settings.margin
    return [
        System("mean pooling", "mean", baseline=CLS),
        System("max pooling", "max", baseline=CLS),
        System("statistics pooling", "statistics", baseline=CLS),
        System("attentive statistics pooling", "attentive statistics", baseline=CLS),
        System(
            f"{PROPOSED} + separation",
            eal_weight=eal,
            fual_weight=fual,
            margin=margin,
            negative_margin=settings.negative_margin,
            baseline=PROPOSED,
        ),
        CLASSICAL,
    ]


def eal_system(margin: float, weight: float, settings: Settings) -> System:
    """CLS + EAL at any margin and weight; at those of the settings it is the paper's system, and is trained once."""
    name = "CLS + EAL"
    if (margin, weight) != (settings.margin, settings.eal_weight):
        name += f", margin {margin:g}, weight {weight:g}"
    return System(name, eal_weight=weight, margin=margin, baseline=CLS)


def fual_system(margin: float, eal_weight: float, weight: float, settings: Settings) -> System:
    """CLS + EAL + FUAL at any weights; likewise."""
    if weight == 0:
        return eal_system(margin, eal_weight, settings)
    name = PROPOSED
    if (margin, eal_weight, weight) != (settings.margin, settings.eal_weight, settings.fual_weight):
        name += f", margin {margin:g}, weights {eal_weight:g} and {weight:g}"
    return System(name, eal_weight=eal_weight, fual_weight=weight, margin=margin, baseline=CLS)


def weighted_systems(weights: Sequence[float], settings: Settings) -> list[System]:
    """EAL alone, FUAL alone, and both at the same weight; at the paper's they are its systems.

    And both with attentive pooling, whose frames are the backbone's own: those of CLS pooling have seen the whole
    utterance. Its utterance vector is EAL's anchor.
    """
    margin, paper = settings.margin, settings.fual_weight

    def fual_alone(weight: float) -> System:
        name = "CLS + FUAL" + ("" if weight == paper else f", weight {weight:g}")
        return System(name, fual_weight=weight, margin=margin, baseline=CLS)

    def attentive(weight: float) -> System:
        name = f"{ATTENTIVE.name} + EAL + FUAL, weights {weight:g}"
        return replace(
            ATTENTIVE, name=name, eal_weight=weight, fual_weight=weight, margin=margin, baseline=ATTENTIVE.name
        )

    return [
        *(eal_system(margin, weight, settings) for weight in weights),
        *(fual_alone(weight) for weight in weights),
        *(fual_system(margin, weight, weight, settings) for weight in weights),
        *(attentive(weight) for weight in weights),
    ]


def variants(system: System, settings: Settings) -> list[System]:
    """A system with EAL and FUAL, and each choice that the paper's text leaves open made the other way."""
    made = {
        "FUAL toward the frames": {"target": "frames"},
        "FUAL for the frames alone": {"detach": "utterance"},
        "FUAL for the utterance alone": {"detach": "frames"},
        "cosine attention": {"pooling": "cls, cosine"},
        "the CLS as the utterance": {"pooling": "cls, its own output"},
        "frames and CLS as the utterance": {"pooling": "cls, both outputs"},
        "separation": {"negative_margin": settings.negative_margin},
    }
    return [replace(system, name=f"{system.name}; {name}", **changes) for name, changes in made.items()]


def chosen_systems(names: Sequence[str], settings: Settings) -> list[System]:
    """`paper`, `all`, or systems by their slugs; stage 1 is always trained, and comes first."""
    paper, further = paper_systems(settings), further_systems(settings)
    known = {system.slug: system for system in [*paper, *further]}
    groups = {"paper": paper, "all": [*paper, *further]}
    chosen: set[str] = set()
    for name in names:
        if name not in groups and name not in known:
            raise RecipeError(f"--systems {name}: there are {', '.join([*groups, *known])}.")
        chosen.update(system.slug for system in groups.get(name) or [known[name]])
    return [STAGE_1, *(system for slug, system in known.items() if slug in chosen)]
