"""Parameters drawn anew."""

from torch import nn


def reset_layers(module: nn.Module) -> None:
    """Draw the parameters of every layer in `module` anew, in the order in which they were first drawn."""
    for child in module.children():
        reset = getattr(child, "reset_parameters", None)
        if callable(reset):
            reset()
        else:
            reset_layers(child)
