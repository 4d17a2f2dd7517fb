"""One thread, one seed, reproducible Hypothesis examples, and the folder of the real corpora."""

import os
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

torch.set_num_threads(1)

# Derandomised: the same examples on each run, so that a red CI is a change and never a draw of the dice
settings.register_profile(
    "framealign",
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=12,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("framealign")


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def data_root() -> Path:
    """Folder of the real corpora: `FRAMEALIGN_DATA`, else `../shared/data` beside the repository."""
    default = Path(__file__).parents[2] / "shared" / "data"
    root = Path(os.environ.get("FRAMEALIGN_DATA", default))
    if not root.is_dir():
        pytest.skip(f"needs real corpora, and {root} is no folder; set FRAMEALIGN_DATA")
    return root


@pytest.fixture(scope="session")
def models_root() -> Path:
    """Folder of real encoders: `FRAMEALIGN_MODELS`, else `../shared/models` beside the repository."""
    default = Path(__file__).parents[2] / "shared" / "models"
    root = Path(os.environ.get("FRAMEALIGN_MODELS", default))
    if not root.is_dir():
        pytest.skip(f"needs real encoders, and {root} is no folder; set FRAMEALIGN_MODELS")
    return root
