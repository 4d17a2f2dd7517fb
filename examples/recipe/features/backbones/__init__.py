"""Speech encoders by name.

Every file here is a kind of encoder, its `BACKBONE`, and its name is the one on the command line; any other name is
one of the Hugging Face hub, or a path. A file more is an encoder more. None is imported before it is asked for:
transformers alone takes seconds.
"""

from importlib import import_module
from pkgutil import iter_modules

from recipe.features.backbone import Backbone


def backbone_kind(name: str) -> type[Backbone]:
    known = name in {module.name for module in iter_modules(__path__)}
    kind: type[Backbone] = import_module(f"{__name__}.{name if known else 'huggingface'}").BACKBONE
    return kind


def load_backbone(name: str) -> Backbone:
    """`dvector`, `tiny`, or any wav2vec 2.0, HuBERT or WavLM name or local path."""
    return backbone_kind(name).load(name)
