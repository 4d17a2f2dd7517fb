"""Speech encoders by name."""

from recipe.backbones.backbone import Backbone, pad

__all__ = ["Backbone", "load_backbone", "pad"]


def load_backbone(name: str) -> Backbone:
    """`dvector`, `tiny`, or any wav2vec 2.0, HuBERT or WavLM name or local path.

    The libraries behind them are imported only when asked for: transformers alone takes seconds.
    """
    if name == "dvector":
        from recipe.backbones.dvector import DVectorBackbone

        return DVectorBackbone()
    from recipe.backbones.huggingface import pretrained, tiny

    return tiny() if name == "tiny" else pretrained(name)
