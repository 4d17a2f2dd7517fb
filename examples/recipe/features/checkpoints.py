"""Pretrained models of Hugging Face transformers, by name or local path: whole, in float32, and nothing of theirs run.

Whatever is wrong with one ends in one line that says what to do.
"""

import logging
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

import torch
from transformers import AutoConfig, AutoFeatureExtractor, FeatureExtractionMixin, PreTrainedConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from recipe.data.audio import SAMPLE_RATE
from recipe.errors import RecipeError


def configuration(name: str) -> PreTrainedConfig:
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    if Path(name).is_absolute() and not Path(name).is_dir():
        raise RecipeError(f"backbone {name}: there is no such folder; give one saved with save_pretrained, or a name.")
    try:
        found, _ = PreTrainedConfig.get_config_dict(name)
        refuse_code(name, found)
        return AutoConfig.from_pretrained(name)
    except RecipeError:
        raise
    except Exception as error:  # transformers and what it stands on raise a dozen kinds
        raise RecipeError(
            f"backbone {name}: cannot be loaded ({_first_line(error)}). Check the name and the network, give the "
            "path of a folder saved with save_pretrained, or try --backbone dvector, which needs neither."
        ) from None


def weights(
    model_class: type[PreTrainedModel],
    name: str,
    config: PreTrainedConfig,
    needed: str = "",
    unused: Sequence[str] = (),
) -> PreTrainedModel:
    """In float32, whatever they are on disk.

    Args:
        needed: The part of the model that is used: the names of its weights begin so.
        unused: Weights of it that are not used; all others must be in the checkpoint.
    """
    try:
        model, report = model_class.from_pretrained(name, config=config, dtype=torch.float32, output_loading_info=True)
    except Exception as error:
        raise _incomplete(name, error) from None
    if absent := sorted(n for n in report["missing_keys"] if n.startswith(needed) and n not in unused):
        other_names = [name for name in report["unexpected_keys"] if needed in name]
        strange = get_close_matches(absent[0], other_names, 1, cutoff=0)
        others = f"; what they have is {strange[0]}, and more" if strange else ""
        raise RecipeError(
            f"backbone {name}: its weights do not have {len(absent)} of those that a {config.model_type} model needs, "
            f"{absent[0]} for one{others}. They would be random: save the model again with save_pretrained."
        )
    return model


def preprocessor(name: str) -> FeatureExtractionMixin:
    try:
        found, _ = FeatureExtractionMixin.get_feature_extractor_dict(name)
        refuse_code(name, found)
        extractor = AutoFeatureExtractor.from_pretrained(name)
    except RecipeError:
        raise
    except Exception as error:
        raise _incomplete(name, error) from None
    if extractor.sampling_rate != SAMPLE_RATE:
        raise RecipeError(
            f"backbone {name}: its preprocessor asks for {extractor.sampling_rate} Hz, and the recipe reads audio at "
            f"{SAMPLE_RATE} Hz, for which it would be another model; take one trained at {SAMPLE_RATE} Hz."
        )
    return extractor


def refuse_code(name: str, config: dict) -> None:
    if "auto_map" in config:
        raise RecipeError(
            f"backbone {name}: brings Python code of its own, which the recipe does not run; give a model that "
            "transformers knows by itself."
        )


def _incomplete(name: str, error: Exception) -> RecipeError:
    return RecipeError(
        f"backbone {name}: its configuration loads, but its weights or its preprocessor do not "
        f"({_first_line(error)}). Check the network, or save both again with save_pretrained."
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
