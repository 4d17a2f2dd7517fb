"""What PyTorch is doing while this library is called: which path is open depends on it."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad


def can_be_read(tensor: Tensor) -> bool:
    """Whether the values are at hand: in host memory, and neither traced nor transformed."""
    return (
        not torch.compiler.is_compiling()
        and type(tensor) is Tensor
        and tensor.device.type == "cpu"
        and not needs_every_derivative()
    )


def is_transforming() -> bool:
    """Inside a transform of `torch.func`."""
    return bool(torch._C._are_functorch_transforms_active())


def needs_every_derivative() -> bool:
    """Inside a transform of `torch.func`, forward mode, or `torch.jit.trace`, which would keep one batch's values.

    A formula for the gradient alone is not enough there.
    """
    return is_transforming() or forward_ad._current_level >= 0 or bool(torch._C._is_tracing())


def is_exporting() -> bool:
    # The flag that `torch.compiler.is_exporting` returns: up to torch 2.11, Dynamo takes the call itself for true in
    # every compiled function (pytorch/pytorch#176347)
    return bool(getattr(torch.compiler, "_is_exporting_flag", False))


def differentiate(
    ctx: Any, outputs: Sequence[Tensor], inputs: Sequence[Tensor | None], gradients: Sequence[Tensor]
) -> tuple[Tensor | None, ...]:
    """In a backward pass that will itself be differentiated: gradients to the inputs that need one."""
    needed = [index for index, _ in enumerate(inputs) if ctx.needs_input_grad[index]]
    pairs = [(output, gradient) for output, gradient in zip(outputs, gradients, strict=True) if output.requires_grad]
    found = torch.autograd.grad(
        [output for output, _ in pairs],
        [value for value in (inputs[index] for index in needed) if value is not None],
        [gradient for _, gradient in pairs],
        create_graph=True,
        allow_unused=True,
        materialize_grads=True,
    )
    by_input = dict(zip(needed, found, strict=True))
    return tuple(by_input.get(index) for index, _ in enumerate(inputs))
