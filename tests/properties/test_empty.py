"""Point 3: an utterance without real frames is zero, counts nowhere and sends back no nan."""

import pytest
import torch
from hypothesis import given
from torch import Tensor, nn

from cases import (
    EVERYTHING,
    LOSSES,
    OBJECTIVE,
    POOLINGS,
    Case,
    OnePass,
    assert_close,
    assert_equal,
    cases_of,
    frame_inputs,
    make_inputs,
    run,
)
from cases import gradients as gradients_of
from strategies import masks, seeds

NOTHING_REAL = {"no frames": (2, 3), "no time": (2, 0), "no batch": (0, 3), "nothing at all": (0, 0)}


@pytest.mark.parametrize("case", POOLINGS, ids=str)
@given(mask=masks(min_batch=1), seed=seeds)
def test_it_pools_to_zero(case: Case, mask: Tensor, seed: int) -> None:
    mask[0] = False
    for name, value in run(case.build(), make_inputs(case, mask, seed=seed), mask).items():
        assert not value[0].any(), f"`{name}` of an utterance without frames is not zero"


@pytest.mark.parametrize("case", [*LOSSES, *OBJECTIVE], ids=str)
@given(mask=masks(min_batch=1), seed=seeds)
def test_it_counts_in_no_term(case: Case, mask: Tensor, seed: int) -> None:
    module, inputs = case.build(), make_inputs(case, mask, seed=seed)
    present = mask.any(dim=1)
    losses = run(module, inputs, mask)
    without = run(module, {name: value[present] for name, value in inputs.items()}, mask[present])
    assert_close({name: value[present] if value.ndim else value for name, value in losses.items()}, without)
    if losses["loss"].ndim:
        assert not losses["loss"][~present].any()


@pytest.mark.parametrize("case", [*LOSSES, *cases_of(OnePass)], ids=str)
@given(mask=masks(min_batch=2), seed=seeds)
def test_its_anchor_or_logits_never_matter(case: Case, mask: Tensor, seed: int) -> None:
    mask[1] = False
    module, inputs = case.build(), make_inputs(case, mask, seed=seed)
    broken_inputs = dict(inputs)
    for name in set(case.inputs) - set(frame_inputs(inputs)):
        broken = inputs[name].detach().clone()
        broken[1] = torch.nan
        broken_inputs[name] = broken.requires_grad_()
    loss, broken_loss = run(module, inputs, mask), run(module, broken_inputs, mask)
    assert_equal(broken_loss, loss)
    assert_equal(gradients_of(broken_loss, module, broken_inputs), gradients_of(loss, module, inputs))


@pytest.mark.parametrize("case", EVERYTHING, ids=str)
@given(mask=masks(min_batch=1), seed=seeds)
@pytest.mark.filterwarnings("ignore:Anomaly Detection")
def test_no_step_of_the_backward_pass_is_nan(case: Case, mask: Tensor, seed: int) -> None:
    """With an empty utterance in the batch, even where a later step would write over the nan."""
    mask[0] = False
    module, inputs = case.build(), make_inputs(case, mask, seed=seed)
    with torch.autograd.set_detect_anomaly(True):
        gradients = gradients_of(run(module, inputs, mask), module, inputs)
    assert all(gradient.isfinite().all() for gradient in gradients.values())


@pytest.mark.parametrize("shape", NOTHING_REAL.values(), ids=NOTHING_REAL)
@pytest.mark.parametrize("case", [*LOSSES, *OBJECTIVE], ids=str)
def test_nothing_real_is_a_zero_loss_joined_to_the_graph(case: Case, shape: tuple[int, int]) -> None:
    mask = torch.zeros(shape, dtype=torch.bool)
    module, inputs = case.build(), make_inputs(case, mask)
    loss = run(module, inputs, mask)["loss"].sum()
    assert loss == 0
    loss.backward()
    for leaf in [*module.parameters(), *(inputs[name] for name in case.inputs)]:
        assert leaf.grad is None or not leaf.grad.any()
    _assert_each_parameter_has_a_gradient(module)


@pytest.mark.parametrize("shape", NOTHING_REAL.values(), ids=NOTHING_REAL)
@pytest.mark.parametrize("case", POOLINGS, ids=str)
def test_nothing_real_pools_to_zeros_joined_to_the_graph(case: Case, shape: tuple[int, int]) -> None:
    mask = torch.zeros(shape, dtype=torch.bool)
    module, inputs = case.build(), make_inputs(case, mask)
    outputs = run(module, inputs, mask)
    assert outputs["utterance"].shape == (shape[0], module.output_dim)
    sum(value.sum() for value in outputs.values()).backward()
    assert not inputs["frames"].grad.any()
    _assert_each_parameter_has_a_gradient(module)


def _assert_each_parameter_has_a_gradient(module: nn.Module) -> None:
    """Zero, not None: distributed training waits for each of them."""
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, f"`{name}` is not joined to the graph"
        assert not parameter.grad.any(), f"`{name}` has a gradient"
