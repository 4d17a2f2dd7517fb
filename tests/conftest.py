"""One thread, one seed, reproducible Hypothesis examples, and the folder of the real corpora."""

import os
import sys
from collections.abc import Iterator
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
    # mutmut runs a test of a class twice in one process, of two instances
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.differing_executors],
)
settings.load_profile("framealign")


@pytest.fixture(autouse=True)
def _seed() -> Iterator[None]:
    torch.manual_seed(0)
    yield
    forget_lazy_modules()


@pytest.hookimpl(tryfirst=True)  # before Hypothesis
def pytest_collection_modifyitems() -> None:
    forget_lazy_modules()


def forget_lazy_modules() -> None:
    """SpeechBrain's answer any question with an import, which may fail; Hypothesis asks all modules for their file."""
    if "speechbrain" in sys.modules:
        from speechbrain.utils.importutils import LazyModule

        for name in [name for name, module in sys.modules.items() if issubclass(type(module), LazyModule)]:
            del sys.modules[name]


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
