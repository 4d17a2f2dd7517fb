"""Other libraries' poolings and losses; None for one that is not installed."""

import importlib.util
import warnings
from importlib import metadata
from pathlib import Path
from types import ModuleType

PACKAGES = ("pytorch-metric-learning", "s3prl", "speechbrain")


def versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def pytorch_metric_learning_losses() -> ModuleType | None:
    return _import("pytorch_metric_learning.losses")


def speechbrain_pooling() -> ModuleType | None:
    return _import("speechbrain.nnet.pooling")


def s3prl_pooling() -> ModuleType | None:
    """Its file alone, which needs torch only: the package does not import beside torchaudio 2.9 and later."""
    package = importlib.util.find_spec("s3prl")
    if package is None or package.origin is None:
        return None
    path = Path(package.origin).parent / "nn" / "pooling.py"
    spec = importlib.util.spec_from_file_location("s3prl_pooling", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _import(name: str) -> ModuleType | None:
    if importlib.util.find_spec(name.partition(".")[0]) is None:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # theirs, about what else they would like to find
        return importlib.import_module(name)
