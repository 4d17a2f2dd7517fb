"""Other libraries' poolings and losses; None for one that is not installed."""

import importlib.util
import warnings
from importlib import metadata
from types import ModuleType

PACKAGES = ("espnet-s3prl", "pytorch-metric-learning", "speechbrain")


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
    return _import("s3prl.nn.pooling")


def _import(name: str) -> ModuleType | None:
    if importlib.util.find_spec(name.partition(".")[0]) is None:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # theirs, about what else they would like to find
        return importlib.import_module(name)
