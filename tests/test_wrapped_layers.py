"""What people put around linear layers takes part: each pooling calls them, or reads them only where that is the same.

LoRA, pruning, weight norm and quantisation keep a readable `weight`, which is not what the layer computes with;
sharding and offloading keep one that is not there.
"""

from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from accelerate import cpu_offload
from torch import Tensor, nn
from torch.nn.utils import prune
from torch.nn.utils.parametrizations import weight_norm

from cases import DIM, POOLINGS, assert_close, assert_close_to_rounding
from framealign import AttentivePooling, lengths_to_mask
from framealign._plain_linear import is_plain_linear

each_pooling = pytest.mark.parametrize(
    "make",
    [
        pytest.param(partial(case.module, **case.options), id=str(case))
        for case in POOLINGS
        if any(isinstance(layer, nn.Linear) for layer in case.module(**case.options).modules())
    ],
)


class LoRA(nn.Module):
    """As peft's: the weight of the layer below stays readable."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base
        self.down = nn.Parameter(torch.randn(2, base.in_features))
        self.up = nn.Parameter(torch.randn(base.out_features, 2))

    @property
    def weight(self) -> Tensor:
        return self.base.weight

    @property
    def bias(self) -> Tensor | None:
        return self.base.bias

    def forward(self, values: Tensor) -> Tensor:
        return self.base(values) + values @ self.down.T @ self.up.T

    def merged(self) -> nn.Linear:
        """The plain layer that computes the same."""
        with torch.no_grad():
            self.base.weight += self.up @ self.down
        return self.base


def replace_linears(module: nn.Module, by: Callable[[nn.Module], nn.Module], kind: type = nn.Linear) -> None:
    for name, child in list(module.named_children()):
        if isinstance(child, kind):
            setattr(module, name, by(child))
        else:
            replace_linears(child, by, kind)


def batch() -> tuple[Tensor, Tensor]:
    mask = lengths_to_mask([20, 7, 0], 20)
    return torch.randn(3, 20, DIM).masked_fill(~mask[..., None], torch.nan), mask


@each_pooling
def test_lora_takes_part_and_learns(make: Callable[[], nn.Module]) -> None:
    pooling = make().eval()
    replace_linears(pooling, LoRA)
    found, embedded = pooling(*batch()).utterance, pooling.embed(*batch_again())
    found.square().sum().backward()
    for layer in pooling.modules():
        if isinstance(layer, LoRA):
            assert layer.up.grad is not None
            assert layer.up.grad.isfinite().all()
            assert layer.up.grad.any()
    replace_linears(pooling, LoRA.merged, LoRA)
    frames, mask = batch_again()
    expected = pooling(frames, mask).utterance
    assert_close(embedded, expected)


def batch_again() -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return batch()


@each_pooling
def test_pruning_takes_part(make: Callable[[], nn.Module]) -> None:
    pooling = make().eval()
    linears = [layer for layer in pooling.modules() if isinstance(layer, nn.Linear)]
    for layer in linears:
        prune.l1_unstructured(layer, "weight", amount=0.5)
    with torch.no_grad():
        for layer in linears:  # after the latest call of its hook, which writes `weight`
            layer.weight_orig.mul_(3)
    found, embedded = pooling(*batch_again()).utterance, pooling.embed(*batch_again())
    for layer in linears:
        prune.remove(layer, "weight")
    expected = pooling(*batch_again()).utterance
    torch.testing.assert_close(found, expected)
    assert_close_to_rounding(embedded, expected)


@each_pooling
@pytest.mark.parametrize("norm", [nn.utils.weight_norm, weight_norm], ids=["hook", "parametrization"])
@pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated")
def test_weight_norm_learns_in_step_after_step(make: Callable[[], nn.Module], norm: Callable[..., nn.Module]) -> None:
    pooling = make()
    for layer in list(pooling.modules()):
        if isinstance(layer, nn.Linear):
            norm(layer)
    for function in (lambda *inputs: pooling(*inputs).utterance, pooling.embed):
        for _ in range(2):
            pooling.zero_grad()
            function(*batch_again()).square().sum().backward()
            gradients = {name: parameter.grad for name, parameter in pooling.named_parameters()}
            scales = [gradient for name, gradient in gradients.items() if name.endswith(("weight_g", "original0"))]
            assert scales
            assert all(gradient is not None and gradient.isfinite().all() for gradient in scales)


@each_pooling
@pytest.mark.filterwarnings("ignore:torch.ao.quantization is deprecated", "ignore::DeprecationWarning")
def test_dynamic_quantisation(make: Callable[[], nn.Module]) -> None:
    pooling = make().eval()
    quantised = torch.ao.quantization.quantize_dynamic(pooling, {nn.Linear}, dtype=torch.qint8)
    expected = pooling(*batch_again()).utterance
    for found in (quantised(*batch_again()).utterance, quantised.embed(*batch_again())):
        assert (found - expected).abs().max() < 0.1


@each_pooling
@pytest.mark.parametrize("config", ["Int8WeightOnlyConfig", "Int8DynamicActivationInt8WeightConfig"])
def test_torchao(make: Callable[[], nn.Module], config: str) -> None:
    quantization = pytest.importorskip("torchao.quantization")
    pooling = make().eval()
    expected = pooling(*batch_again()).utterance
    quantization.quantize_(pooling, getattr(quantization, config)())
    for found in (pooling(*batch_again()).utterance, pooling.embed(*batch_again())):
        assert (found - expected).abs().max() < 0.1


class OnlyMultiplies(Tensor):
    """As a quantised weight: what it holds is half of what it multiplies by, and nothing else can be done with it."""

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        args = [value.as_subclass(Tensor) if isinstance(value, cls) else value for value in args]
        if function is F.linear:
            values, weight, *bias = args
            return F.linear(values, 2 * weight, *bias)
        if function in (Tensor.split, Tensor.expand, torch.split):
            raise NotImplementedError(function)
        return super().__torch_function__(function, types, args, kwargs)


@each_pooling
def test_a_weight_that_is_no_ordinary_tensor_is_not_read(make: Callable[[], nn.Module]) -> None:
    pooling = make().eval()
    expected = pooling(*batch_again()).utterance
    for layer in pooling.modules():
        if isinstance(layer, nn.Linear):
            half = (layer.weight.detach() / 2).as_subclass(OnlyMultiplies)
            layer.weight = nn.Parameter(half, requires_grad=False)
    for found in (pooling(*batch_again()).utterance, pooling.embed(*batch_again())):
        assert_close_to_rounding(found, expected)


@each_pooling
def test_offloaded_parameters_are_fetched(make: Callable[[], nn.Module]) -> None:
    """accelerate puts another forward in place of that of each module with parameters."""
    pooling = make().eval()
    expected = pooling(*batch_again()).utterance
    cpu_offload(pooling, execution_device="cpu")
    assert all(parameter.is_meta for parameter in pooling.parameters())
    for found in (pooling(*batch_again()).utterance, pooling.embed(*batch_again())):
        assert_close_to_rounding(found, expected)


@each_pooling
@pytest.mark.parametrize("lengths", [[20, 7, 0], [20, 20, 20]], ids=["unpadded", "padded"])
def test_a_hook_on_any_part_is_waited_for(make: Callable[[], nn.Module], lengths: list[int]) -> None:
    """As sharding hooks them: whole, and in parts of any size."""
    pooling = make().eval()
    frames, mask = torch.randn(3, 20, DIM), lengths_to_mask(lengths, 20)
    for part in pooling.modules():
        if list(part.parameters()) and not isinstance(part, nn.ModuleList):
            for function in (pooling, pooling.embed):
                called = []
                hook = part.register_forward_pre_hook(lambda *_, called=called: called.append(True))
                function(frames, mask)
                hook.remove()
                assert called


def test_an_exported_program_reads_what_calls_would_only_repeat() -> None:
    """Its parameters are fakes while it is traced, and no less ordinary."""
    program = torch.export.export(AttentivePooling(DIM, hidden_dim=None), (torch.randn(2, 5, DIM),), strict=False)
    assert torch.ops.aten.linear.default not in {node.target for node in program.graph.nodes}


def test_plain_is_a_layer_that_computes_with_its_weight_and_no_more() -> None:
    class Other(nn.Linear):
        pass

    assert is_plain_linear(nn.Linear(2, 2))
    hooked, normed = nn.Linear(2, 2), weight_norm(nn.Linear(2, 2))
    hooked.register_forward_hook(lambda *_: None)
    replaced = nn.Linear(2, 2)
    replaced.forward = lambda values: values  # as accelerate's offloading does
    for layer in (Other(2, 2), hooked, replaced, normed, LoRA(nn.Linear(2, 2)), lambda values: values, nn.Identity()):
        assert not is_plain_linear(layer)
