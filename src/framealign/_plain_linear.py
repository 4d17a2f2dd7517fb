"""Whether a module may be read in place of being called."""

from typing import TypeGuard

import torch.nn.modules.module as torch_module
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor

_ORDINARY = nn.Parameter, FakeTensor  # the second while `torch.export` traces the first


def is_plain(module: nn.Module) -> bool:
    """Whether calling `module` runs its own forward and no more: no hooks, and no other forward in its place.

    Sharding and offloading fetch parameters so, just before they are needed.
    """
    hooks = (
        module._forward_hooks,
        module._forward_pre_hooks,
        module._backward_hooks,
        module._backward_pre_hooks,
        *(getattr(torch_module, f"_global_{kind}_hooks") for kind in ("forward", "forward_pre", "backward")),
        torch_module._global_backward_pre_hooks,
    )
    return not any(hooks) and "forward" not in module.__dict__


def is_plain_linear(layer: object) -> TypeGuard[nn.Linear]:
    """Whether calling `layer` is a product with its weight and no more: no subclass, of it or of the weight's tensor.

    Adapters, weight norm, pruning, quantisation and sharding change one of these.
    """
    return type(layer) is nn.Linear and type(layer.weight) in _ORDINARY and is_plain(layer)
