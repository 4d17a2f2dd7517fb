"""The d-vector encoder: a small pretrained LSTM for trying the recipe on a laptop, without a model hub."""

from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn
from torchaudio.transforms import MelSpectrogram

from recipe.audio import SAMPLE_RATE
from recipe.backbones.backbone import Backbone
from recipe.errors import RecipeError

_LEVEL = 10 ** (-30 / 20)  # root mean square that the encoder was trained at, -30 dB of full scale
_FROZEN_LAYERS = 2  # of the LSTM's three


class DVectorBackbone(Backbone):
    """The GE2E speaker encoder of Wan et al. 2018, as the package `resemblyzer` carries it (1.6 M parameters).

    It was trained to tell speakers apart, on mel spectra. That makes it fit for trying the recipe where no
    wav2vec 2.0 can run, and unfit for claims about emotion recognition.

    The front end is the mel spectrum and the two lower layers of the LSTM, frozen: what is computed once and kept
    makes training three times faster, as wav2vec 2.0's frozen CNN does. The upper layer is fine-tuned, and a
    LayerNorm behind it gives frames of unit scale, with which wav2vec 2.0 ends too; the bare states, around 0.1,
    leave a new classifier far behind the backbone. The LSTM steps every 10 ms; every second state is kept, which
    gives frames of 20 ms.
    """

    dim = 256

    def __init__(self) -> None:
        super().__init__()
        self.mel = MelSpectrogram(
            SAMPLE_RATE, n_fft=400, hop_length=160, n_mels=40, norm="slaney", mel_scale="slaney", pad_mode="constant"
        )
        self.lower = nn.LSTM(40, self.dim, num_layers=_FROZEN_LAYERS, batch_first=True).requires_grad_(False)
        self.upper = nn.LSTM(self.dim, self.dim, num_layers=3 - _FROZEN_LAYERS, batch_first=True)
        self.norm = nn.LayerNorm(self.dim)
        lower, upper = _pretrained_layers()
        self.lower.load_state_dict(lower)
        self.upper.load_state_dict(upper)

    @torch.no_grad()
    def features(self, waveform: Tensor) -> Tensor:
        # Quiet recordings are raised to the level it knows, loud ones left alone, as in its training
        gain = (_LEVEL / waveform.square().mean().sqrt()).clamp_min(1.0)
        states, _ = self.lower(self.mel(waveform * gain).T)
        return states

    def encode(self, features: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        states, _ = self.upper(features)  # reads forward only, so padding behind an utterance cannot reach it
        return self.norm(states[:, 1::2]), mask[:, 1::2]


def _pretrained_layers() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The weights of the lower and the upper layers, each numbered from 0."""
    lower: dict[str, Tensor] = {}
    upper: dict[str, Tensor] = {}
    state = torch.load(_weights(), map_location="cpu", weights_only=True)["model_state"]
    for name, value in state.items():
        kind, _, layer = name.removeprefix("lstm.").rpartition("_l")  # as in "lstm.weight_ih_l2"
        if name.startswith("lstm."):
            part, first = (lower, 0) if int(layer) < _FROZEN_LAYERS else (upper, _FROZEN_LAYERS)
            part[f"{kind}_l{int(layer) - first}"] = value
    return lower, upper


def _weights() -> Path:
    # Found without importing the package, whose audio stack this recipe does not need
    spec = find_spec("resemblyzer")
    path = Path(spec.origin).with_name("pretrained.pt") if spec and spec.origin else None
    if path is None or not path.exists():
        raise RecipeError(
            "backbone dvector: its weights come with the package resemblyzer, which is not installed; "
            'run `pip install "framealign[examples]"`, or choose another --backbone.'
        )
    return path
