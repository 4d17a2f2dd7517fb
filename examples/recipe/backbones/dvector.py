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


class DVectorBackbone(Backbone):
    """The GE2E speaker encoder of Wan et al. 2018, as the package `resemblyzer` carries it (1.6 M parameters).

    It was trained to tell speakers apart, on mel spectra. That makes it fit for trying the recipe where no
    wav2vec 2.0 can run, and unfit for claims about emotion recognition.

    The LSTM steps every 10 ms; every second state is kept, which gives frames of 20 ms as wav2vec 2.0 does.
    """

    dim = 256

    def __init__(self) -> None:
        super().__init__()
        self.mel = MelSpectrogram(
            SAMPLE_RATE, n_fft=400, hop_length=160, n_mels=40, norm="slaney", mel_scale="slaney", pad_mode="constant"
        )
        self.lstm = nn.LSTM(40, self.dim, num_layers=3, batch_first=True)
        state = torch.load(_weights(), map_location="cpu", weights_only=True)["model_state"]
        self.lstm.load_state_dict({k.removeprefix("lstm."): v for k, v in state.items() if k.startswith("lstm.")})

    @torch.no_grad()
    def features(self, waveform: Tensor) -> Tensor:
        # Quiet recordings are raised to the level it knows, loud ones left alone, as in its training
        gain = (_LEVEL / waveform.square().mean().sqrt()).clamp_min(1.0)
        steps: Tensor = self.mel(waveform * gain)
        return steps.T

    def encode(self, features: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        states, _ = self.lstm(features)  # reads forward only, so padding behind an utterance cannot reach it
        return states[:, 1::2], mask[:, 1::2]


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
