"""Speech encoders by name.

Every file here is a kind of encoder, its `BACKBONE`. Its name is the one on the command line; but a file with
`MODEL_TYPES` is for models of the Hugging Face hub, or paths, whose configuration says that they are of one of these
types. A file more is an encoder more. None is imported before it is asked for: transformers alone takes seconds.
"""

from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType

from recipe.errors import RecipeError
from recipe.features.backbone import Backbone
from recipe.settings import Settings


def load_backbone(name: str, settings: Settings | None = None) -> Backbone:
    """`dvector`, `tiny`, or the name or local path of a pretrained model; by default with the settings that suit it."""
    kind = backbone_kind(name)
    return kind.load(name, kind.settings_for(name) if settings is None else settings)


def backbone_kind(name: str) -> type[Backbone]:
    files = _files()
    if name in files and not hasattr(found := _module(name), "MODEL_TYPES"):
        return found.BACKBONE
    from recipe.features.checkpoints import configuration

    model_type = configuration(name).model_type
    known: list[str] = []
    for file in map(_module, files):
        types = getattr(file, "MODEL_TYPES", ())
        if model_type in types:
            return file.BACKBONE
        known += types
    raise RecipeError(
        f"backbone {name}: is a {model_type} model, not one of {', '.join(known)}; the recipe needs a speech encoder "
        "such as facebook/wav2vec2-base or openai/whisper-base."
    )


def kind_name(backbone: Backbone) -> str:
    """The file that a backbone's kind is in."""
    return type(backbone).__module__.removeprefix(f"{__name__}.")


def untrained_backbone(kind: str, folder: Path, settings: Settings) -> Backbone:
    """A backbone of the kind that `kind_name` told, without its weights."""
    if kind not in _files():
        raise RecipeError(f"{folder}: its backbone is of the kind {kind}, and known are {', '.join(_files())}.")
    return _module(kind).BACKBONE.untrained(folder, settings)


def _files() -> list[str]:
    return [module.name for module in iter_modules(__path__)]


def _module(file: str) -> ModuleType:
    return import_module(f"{__name__}.{file}")
