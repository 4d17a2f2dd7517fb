"""Whether a layer may be read in place of being called."""

from typing import TypeGuard

import torch.nn.modules.module as torch_module
from torch import nn


def is_plain_linear(layer: object) -> TypeGuard[nn.Linear]:
    """Whether calling `layer` is a product with its weight and no more: no subclass, no adapter around it, no hooks.

    Adapters, weight norm, pruning, quantisation and sharding change one of these.
    """
    if type(layer) is not nn.Linear or not isinstance(layer.weight, nn.Parameter):
        return False
    hooks = (
        layer._forward_hooks,
        layer._forward_pre_hooks,
        layer._backward_hooks,
        layer._backward_pre_hooks,
        *(getattr(torch_module, f"_global_{kind}_hooks") for kind in ("forward", "forward_pre", "backward")),
        torch_module._global_backward_pre_hooks,
    )
    return not any(hooks)
