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
    return _real("FRAMEALIGN_DATA", "data", "corpora")


@pytest.fixture(scope="session")
def models_root() -> Path:
    """Folder of real encoders: `FRAMEALIGN_MODELS`, else `../shared/models` beside the repository."""
    return _real("FRAMEALIGN_MODELS", "models", "encoders")


def _real(variable: str, name: str, what: str) -> Path:
    root = Path(os.environ.get(variable, Path(__file__).parents[2] / "shared" / name))
    if not root.is_dir():
        pytest.skip(f"needs real {what}, and {root} is no folder; set {variable}")
    return root
