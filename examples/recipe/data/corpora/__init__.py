"""Emotional speech corpora, each read from its own public layout, and any other from a manifest.

Every file here is one corpus and describes it in its `CORPUS`: a file more is a corpus more.
"""

from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Literal

from recipe.data.corpus import FOUR_CLASSES, Corpus, CorpusKind


def corpora() -> dict[str, CorpusKind]:
    """Those that the recipe knows, by their names on the command line."""
    kinds = [import_module(f"{__name__}.{module.name}").CORPUS for module in iter_modules(__path__)]
    return {kind.name: kind for kind in kinds}


def read_corpus(name: str, root: Path, classes: Literal["own", "four"] = "own") -> Corpus:
    """A corpus with its own classes, or with the four that every corpus shares; `root` of "manifest" is its file."""
    kind = corpora()[name]
    corpus = kind.read(root, FOUR_CLASSES) if classes == "four" else kind.read(root)
    corpus.speaker_groups, corpus.licence = kind.speaker_groups, kind.licence
    return corpus
