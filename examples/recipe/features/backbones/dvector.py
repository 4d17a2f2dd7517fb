"""The d-vector encoder: a small pretrained LSTM for trying the recipe on a laptop, without a model hub."""

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn
from torchaudio.transforms import MelSpectrogram

from recipe.data.audio import SAMPLE_RATE
from recipe.errors import RecipeError
from recipe.features.backbone import Backbone
from recipe.settings import Settings, Stage

# New layers must catch up with a pretrained encoder in a few epochs on a thousand utterances. Stage 2's rate of the
# attention is the best on EmoDB's validation speakers; at 1e-4 all systems with a CLS end the same, unmoved
_SETTINGS = Settings(
    stage1=Stage(epochs=6, backbone_rate=5e-5, attention_rate=1e-4, head_rate=5e-3),
    stage2=Stage(epochs=3, backbone_rate=2e-5, attention_rate=1e-3, head_rate=5e-3),
    frame_budget=8000,  # an LSTM's memory grows with the length, and its steps are of 10 ms
)

_LEVEL = 10 ** (-30 / 20)  # root mean square that the encoder was trained at, -30 dB of full scale


class DVectorBackbone(Backbone):
    """The GE2E speaker encoder of Wan et al. 2018, as the package `resemblyzer` carries it.

    It was trained to tell speakers apart, on mel spectra. That makes it fit for trying the recipe where no
    wav2vec 2.0 can run, and unfit for claims about emotion recognition. Its third and last LSTM layer is left
    out, being the one most given to speakers: benchmarks/linear_probe.py finds more emotion below it.

    The front end is the mel spectrum and the first layer, frozen: it is computed once and kept, as wav2vec 2.0's
    frozen CNN is. The second layer is fine-tuned. A LayerNorm behind it gives frames of unit scale, with which
    wav2vec 2.0 ends too; the bare states, around 0.1, would leave a new classifier far behind the backbone. The
    LSTM steps every 10 ms; every second state is kept, which gives frames of 20 ms.
    """

    dim = 256
    settings = _SETTINGS
    # The demo's speech is simple, and all of its systems should be done in minutes
    demo_settings = replace(
        _SETTINGS, stage1=replace(_SETTINGS.stage1, epochs=4), stage2=replace(_SETTINGS.stage2, epochs=2)
    )
    precision = "no"  # too small for bf16 to pay
    caveat = (
        "The backbone `dvector` is a *speaker* encoder: fit for trying the recipe on a laptop, not for claims about "
        "emotion recognition."
    )

    def __init__(self, pretrained: bool = True) -> None:
        super().__init__()
        self.mel = MelSpectrogram(
            SAMPLE_RATE, n_fft=400, hop_length=160, n_mels=40, norm="slaney", mel_scale="slaney", pad_mode="constant"
        )
        self.frozen = layer(0, pretrained).requires_grad_(False)
        self.tuned = layer(1, pretrained)
        self.norm = nn.LayerNorm(self.dim)

    @classmethod
    def untrained(cls, folder: Path, settings: Settings) -> "DVectorBackbone":
        return cls(pretrained=False)

    def mel_spectrum(self, waveform: Tensor) -> Tensor:
        # Quiet recordings are raised to the level it knows, loud ones left alone, as in its training
        gain = (_LEVEL / waveform.square().mean().sqrt()).clamp_min(1.0)
        steps: Tensor = self.mel(waveform * gain)
        return steps.T

    @torch.no_grad()
    def features(self, waveform: Tensor) -> Tensor:
        states, _ = self.frozen(self.mel_spectrum(waveform))
        return states

    def front_end(self) -> dict[str, Tensor]:
        return self.frozen.state_dict()

    def why_not_whole(self, suffix: str) -> str:
        return "torch.export writes an LSTM out step by step, for one length"

    def encode(self, features: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        states, _ = self.tuned(features)  # reads forward only, so padding behind an utterance cannot reach it
        return self.norm(states[:, 1::2]), mask[:, 1::2]


def layer(number: int, pretrained: bool) -> nn.LSTM:
    """One of the encoder's three layers."""
    found = nn.LSTM(40 if number == 0 else DVectorBackbone.dim, DVectorBackbone.dim, batch_first=True)
    if pretrained:
        state = torch.load(_weights(), map_location="cpu", weights_only=True)["model_state"]
        # they are named as in "weight_ih_l0"
        found.load_state_dict({name: state[f"lstm.{name[:-1]}{number}"] for name in found.state_dict()})
    return found


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


BACKBONE = DVectorBackbone
