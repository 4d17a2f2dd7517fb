"""The one interface of the recipe to a speech encoder: waveforms in, frames and mask out."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from framealign import lengths_to_mask
from recipe.errors import RecipeError
from recipe.settings import Settings


@dataclass(frozen=True)
class Input:
    """What an exported model reads of a padded batch, beside the mask."""

    name: str
    shape: tuple[str | int, ...]  # the batch first, and one name more, which is time's
    meaning: str
    shortest: int  # in time; one utterance of a batch may be shorter
    longest: int

    @property
    def time(self) -> int:
        """Which axis is time's."""
        return next(axis for axis, size in enumerate(self.shape) if axis and isinstance(size, str))


class Backbone(nn.Module, ABC):
    """A speech encoder in two parts: a frozen front end, and the part that is fine-tuned.

    Each kind is the `BACKBONE` of one file in `backbones`, and nothing else names it.

    The front end runs on one utterance at a time, without padding. wav2vec2-base normalises its first layer
    over time, so in a padded batch the padding would change the features of every shorter utterance, whatever
    the attention mask. Frozen as it is, its features can be computed once and kept.
    """

    dim: int  # of a frame

    # What a kind of encoder says of itself, beside what it computes
    settings: ClassVar[Settings] = Settings()  # the hyperparameters that suit it
    demo_settings: ClassVar[Settings | None] = None  # on the demo corpus, where others do
    precision: ClassVar[str | None] = None  # to compute in unless a run says which; None: the hardware decides
    caveat: ClassVar[str] = ""  # for the report: what its scores are not fit for

    @classmethod
    def settings_for(cls, name: str) -> Settings:
        """The hyperparameters that suit the encoder that `--backbone` names."""
        return cls.settings

    @classmethod
    def load(cls, name: str, settings: Settings) -> "Backbone":
        """The pretrained encoder that `--backbone` names."""
        if settings.frozen_layers or settings.layers != "last":
            raise RecipeError(
                f"backbone {name}: is no Transformer, and has neither --frozen_layers {settings.frozen_layers} nor "
                f"--layers {settings.layers}; leave them at 0 and last."
            )
        return cls()

    def write_architecture(self, folder: Path) -> None:
        """What `untrained` needs, apart from the settings: a configuration, and no weights."""

    @classmethod
    def untrained(cls, folder: Path, settings: Settings) -> "Backbone":
        """The encoder of a model folder, whose weights are read into it then."""
        return cls()

    @abstractmethod
    def features(self, waveform: Tensor) -> Tensor:
        """The frozen front end: (samples,) at 16 kHz to (steps, width)."""

    @abstractmethod
    def front_end(self) -> dict[str, Tensor]:
        """All that is learned in the frozen front end, by name; features depend on nothing else of the weights."""

    @property
    def preprocessing(self) -> str:
        """What features depend on beside `front_end` and the code, in words."""
        return ""

    def new_parameters(self) -> list[nn.Parameter]:
        """Those that were not trained before, and learn as a new classifier does."""
        return []

    @abstractmethod
    def encode(self, features: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Padded features (batch, steps, width) and their mask to frames (batch, time, dim) and theirs."""

    def why_not_whole(self, suffix: str) -> str | None:
        """Why `whole` cannot be exported to such a file; None where it can: such a kind has the next three."""
        return "its front end takes one utterance at a time"

    @property
    def whole_input(self) -> Input:
        raise NotImplementedError

    def raw(self, waveform: Tensor) -> Tensor:
        """(samples,) at 16 kHz to what `whole` reads of it."""
        raise NotImplementedError

    def whole(self, raw: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Front end and all, of a padded batch, for export: the same frames as those of each utterance alone."""
        raise NotImplementedError

    def forward(self, waveforms: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
        return self.encode(*pad([self.features(waveform) for waveform in waveforms]))


def pad(features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """A padded batch of features and its mask."""
    lengths = torch.tensor([len(steps) for steps in features])
    padded = pad_sequence(list(features), batch_first=True)
    return padded, lengths_to_mask(lengths, max_length=padded.shape[1]).to(padded.device)
