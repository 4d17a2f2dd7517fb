"""The scripts of examples/integrations on a corpus of tones, with small encoders of random weights."""

import runpy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import Wav2Vec2FeatureExtractor, Wav2Vec2Model

from tones import save_encoder, save_tones

SCRIPTS = Path(__file__).parents[2] / "examples" / "integrations"


@pytest.fixture(scope="session")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tones(tmp_path_factory.mktemp("tones"))


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_encoder(tmp_path_factory.mktemp("encoder"), 0)


@pytest.fixture(scope="session")
def half_encoder(tmp_path_factory: pytest.TempPathFactory, encoder: Path) -> Path:
    """The same, saved in half precision, as some checkpoints are."""
    folder = tmp_path_factory.mktemp("half")
    Wav2Vec2Model.from_pretrained(encoder).half().save_pretrained(folder)
    Wav2Vec2FeatureExtractor().save_pretrained(folder)
    return folder


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a script as from its command line; the line with which it ends."""

    def call(script: str, *arguments: object) -> str:
        monkeypatch.setattr("sys.argv", [script, *map(str, arguments)])
        runpy.run_path(str(SCRIPTS / script), run_name="__main__")
        return capsys.readouterr().out.splitlines()[-1]

    return call


@pytest.fixture
def waveforms() -> list[Tensor]:
    """Noise of 1 s, 0.56 s and 0.31 s."""
    return [0.1 * torch.randn(samples) for samples in (16_000, 9_000, 5_000)]
