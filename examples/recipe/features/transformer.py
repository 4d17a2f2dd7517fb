"""What Transformer encoders share: layers that are frozen and run once, and the choice of the states that are read."""

from abc import abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from recipe.errors import RecipeError
from recipe.features.backbone import Backbone
from recipe.settings import Settings


class TransformerBackbone(Backbone):
    """Convolutions and an embedding, then a stack of layers. The first `frozen_layers` of them belong to the front end.

    State 0 is what the first layer reads, state k what layer k leaves; the last one is taken behind the encoder's final
    norm, where there is one, and is transformers' `last_hidden_state`. Frames are the last state, another one, or the
    learned weighted sum of all of them (Yang et al. 2021, SUPERB). Layers above the state that is read are dropped.

    Where layers are normalised before and not behind (Whisper, wav2vec 2.0 large), a state below the last is of any
    scale, and a few of its values a hundred times as large as the others. So it goes through a LayerNorm.

    A kind says what comes before the layers and how a layer is called.
    """

    def __init__(self, model: PreTrainedModel, dim: int, settings: Settings) -> None:
        super().__init__()
        self.model, self.dim = model, dim
        name = model.config.name_or_path or model.config.model_type
        layers, frozen, choice = self.stack, settings.frozen_layers, settings.layers
        self.depth = len(layers)
        self.weighted = choice == "weighted"
        self.read = int(choice) if choice.isdigit() else self.depth
        self.frozen = frozen
        if self.read > self.depth:
            raise RecipeError(f"--layers {choice}: backbone {name} has {self.depth} layers.")
        if frozen > self.read:
            of = f"{self.depth} layers" if self.read == self.depth else f"state {self.read} as its frames"
            raise RecipeError(f"--frozen_layers {frozen}: backbone {name} has {of}.")
        del layers[self.read :]
        states = range(self.read + 1) if self.weighted else [self.read]
        bare = [self.final_norm is not None and state < self.depth for state in states]
        self.norms = nn.ModuleList(nn.LayerNorm(dim) if one else nn.Identity() for one in bare)
        self.state_weights = nn.Parameter(torch.zeros(self.read + 1)) if self.weighted else None
        for module in self.frozen_modules():
            module.requires_grad_(False)
        if self.final_norm is not None and self.read < self.depth:
            self.final_norm.requires_grad_(False)  # unused: it would wait for a gradient

    @property
    @abstractmethod
    def stack(self) -> nn.ModuleList:
        """The encoder's layers."""

    @property
    @abstractmethod
    def final_norm(self) -> nn.Module | None:
        """Behind the last layer; None where layers are normalised behind."""

    @abstractmethod
    def convolutions(self) -> list[nn.Module]:
        """All that is learned in `convolve`."""

    @abstractmethod
    def embeddings(self) -> list[nn.Module]:
        """All that is learned, or drops values, in `embed`."""

    @abstractmethod
    def convolve(self, waveform: Tensor) -> Tensor:
        """(samples,) to (steps, width): always frozen."""

    @abstractmethod
    def convolve_padded(self, raw: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """What `convolve` gives of each utterance of a padded batch, (batch, steps, width), and the steps' mask."""

    @abstractmethod
    def embed(self, steps: Tensor, mask: Tensor) -> Tensor:
        """State 0: padded steps (batch, time, width), zero where padded, and their mask to (batch, time, dim)."""

    @abstractmethod
    def through(self, layers: nn.ModuleList, hidden: Tensor, mask: Tensor) -> Iterator[Tensor]:
        """What each of `layers` leaves, the first of which reads `hidden`."""

    def frozen_modules(self) -> list[nn.Module]:
        modules = self.convolutions()
        if self.frozen:
            modules += [*self.embeddings(), *self.stack[: self.frozen]]
        if self.frozen == self.depth and self.final_norm is not None:
            modules.append(self.final_norm)
        return modules

    def train(self, mode: bool = True) -> "TransformerBackbone":
        super().train(mode)
        for module in self.frozen_modules():
            module.eval()  # without dropout
        return self

    def front_end(self) -> dict[str, Tensor]:
        return {
            f"{number}.{name}": value
            for number, module in enumerate(self.frozen_modules())
            for name, value in module.state_dict().items()
        }

    @property
    def preprocessing(self) -> str:
        return f"frozen layers {self.frozen}, {'all states' if self.weighted else 'the last state'}"

    def new_parameters(self) -> list[nn.Parameter]:
        return [] if self.state_weights is None else [self.state_weights]

    @torch.no_grad()
    def features(self, waveform: Tensor) -> Tensor:
        steps = self.convolve(waveform)
        if not self.frozen:
            return steps
        mask = torch.ones(1, len(steps), dtype=torch.bool, device=steps.device)
        states = list(self.states(self.embed(steps[None], mask), mask, 0, self.frozen))
        return torch.cat(states if self.weighted else states[-1:], dim=2)[0]

    def encode(self, features: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        features = features.masked_fill(~mask[..., None], 0)
        if self.frozen:
            *below, hidden = features.unflatten(2, (-1, self.dim)).unbind(2)
        else:
            below, hidden = [], self.embed(features, mask)
        states = [*below, *self.states(hidden, mask, self.frozen, self.read)]
        return self.mixed(states), mask

    def why_not_whole(self, suffix: str) -> str | None:
        return None

    def whole(self, raw: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        steps, mask = self.convolve_padded(raw, mask)
        hidden = self.embed(steps.masked_fill(~mask[..., None], 0), mask)
        return self.mixed(list(self.states(hidden, mask, 0, self.read))), mask

    def states(self, hidden: Tensor, mask: Tensor, start: int, stop: int) -> Iterator[Tensor]:
        """State `start`, which `hidden` is, to state `stop`."""
        yield hidden
        for number, state in enumerate(self.through(self.stack[start:stop], hidden, mask), start + 1):
            yield self.final_norm(state) if number == self.depth and self.final_norm is not None else state

    def mixed(self, states: list[Tensor]) -> Tensor:
        if self.state_weights is None:
            return self.norms[0](states[-1])
        normalised = [norm(state) for norm, state in zip(self.norms, states, strict=True)]
        return torch.einsum("n,nbtd->btd", self.state_weights.softmax(0), torch.stack(normalised))
