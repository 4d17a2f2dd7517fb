"""Point 7: which derivatives each module has. Where one passes its values are checked, not only that it ran."""

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad, gradcheck, gradgradcheck
from torch.func import functional_call, grad, jacrev, jvp, vmap

from cases import EVERYTHING, SHAPES, Case, Kind, assert_close, frame_inputs, make_inputs, make_mask, run
from framealign import EmotionalAttentionLoss, FrameUtteranceAlignmentLoss

MASK = make_mask(["#.##", "....", "####"])

# A detached side is a constant to the gradient but not to a finite difference: checked apart, below
ATTACHED = [case for case in EVERYTHING if case.options.get("detach") is None]
each_case = pytest.mark.parametrize("case", ATTACHED, ids=str)


def as_function(case: Case) -> tuple[Callable[..., Tensor], tuple[Tensor, ...]]:
    """The case as a function of its inputs and parameters, all outputs in one row; and where to evaluate it."""
    module, inputs = case.build(), make_inputs(case, MASK)
    names, parameters = case.inputs, dict(module.named_parameters())

    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = module

        def forward(self, *values: Tensor) -> Tensor:
            outputs = run(self.module, inputs | dict(zip(names, values, strict=True)), MASK)
            return torch.cat([value.flatten() for value in outputs.values()])

    flat = Flat()

    def function(*values: Tensor) -> Tensor:
        state = dict(zip((f"module.{name}" for name in parameters), values[len(names) :], strict=True))
        return functional_call(flat, state, values[: len(names)])

    leaves = [*(inputs[name] for name in names), *parameters.values()]
    return function, tuple(leaf.detach().requires_grad_() for leaf in leaves)


def differentiated(case: Case) -> Kind:
    """What decides which derivatives there are: a training step has those of its pooling."""
    return case.options.get("pooling", case).kind


def check(expected_error: str | None, attempt: Callable[[], object]) -> None:
    if expected_error is None:
        assert attempt() is not False
    else:
        with pytest.raises((RuntimeError, NotImplementedError), match=expected_error):
            attempt()


@each_case
def test_gradients_equal_finite_differences(case: Case) -> None:
    assert gradcheck(*as_function(case), fast_mode=True)


@each_case
def test_second_derivatives_equal_finite_differences_or_are_refused(case: Case) -> None:
    check(differentiated(case).no_second, lambda: gradgradcheck(*as_function(case), fast_mode=True))


@each_case
def test_forward_mode_agrees_with_backward_or_is_refused(case: Case) -> None:
    function, values = as_function(case)
    tangents = tuple(torch.randn_like(value) for value in values)

    def attempt() -> None:
        outputs, pushed = jvp(function, tuple(value.detach() for value in values), tangents)
        cotangent = torch.randn_like(outputs)
        pulled = torch.autograd.grad(function(*values), values, cotangent)
        assert_close((cotangent * pushed).sum(), sum((a * b).sum() for a, b in zip(pulled, tangents, strict=True)))

    check(differentiated(case).no_forward, attempt)


@each_case
def test_dual_numbers_carry_what_forward_mode_gives(case: Case) -> None:
    """Forward mode without a transform of `torch.func` around it."""
    function, values = as_function(case)
    values = tuple(value.detach() for value in values)
    tangents = tuple(torch.randn_like(value) for value in values)

    def attempt() -> None:
        with forward_ad.dual_level():
            duals = [forward_ad.make_dual(value, tangent) for value, tangent in zip(values, tangents, strict=True)]
            found = forward_ad.unpack_dual(function(*duals)).tangent
        assert_close(found, jvp(function, values, tangents)[1])

    check(differentiated(case).no_forward, attempt)


@each_case
@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_vmap_over_a_stack_of_batches_equals_each_alone(case: Case) -> None:
    function, values = as_function(case)
    stacks = tuple(torch.stack([value, value.flip(0), 2 * value]).detach() for value in values)
    expected = torch.stack([function(*batch) for batch in zip(*stacks, strict=True)])
    assert_close(vmap(function)(*stacks), expected)


@each_case
@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_func_grad_and_jacrev_equal_autograd(case: Case) -> None:
    function, values = as_function(case)
    detached = tuple(value.detach() for value in values)
    every = tuple(range(len(values)))
    expected = torch.autograd.grad(function(*values).sum(), values)
    for ours, theirs in zip(grad(lambda *v: function(*v).sum(), argnums=every)(*detached), expected, strict=True):
        assert_close(ours, theirs)
    expected = torch.autograd.functional.jacobian(function, detached)
    for ours, theirs in zip(jacrev(function, argnums=every)(*detached), expected, strict=True):
        assert_close(ours, theirs)


@each_case
@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_no_derivative_reads_padding(case: Case) -> None:
    """Second ones, and those of `torch.func`: on ways of their own."""
    function, values = as_function(case)
    names = [*case.inputs, *dict(case.build().named_parameters())]
    junk = [
        value.detach().masked_fill(~MASK.reshape(*MASK.shape, *(1,) * (value.ndim - 2)), torch.nan)
        if SHAPES.get(name, "").startswith("bt")
        else value.detach()
        for name, value in zip(names, values, strict=True)
    ]
    every = tuple(range(len(values)))
    found, expected = (
        grad(lambda *v: function(*v).sum(), argnums=every)(*(value.detach() for value in leaves))
        for leaves in (junk, values)
    )
    assert_close(dict(enumerate(found)), dict(enumerate(expected)))

    def second(leaves: Sequence[Tensor]) -> dict[int, Tensor]:
        leaves = [leaf.detach().requires_grad_() for leaf in leaves]
        first = torch.autograd.grad(function(*leaves).square().sum(), leaves, create_graph=True, materialize_grads=True)
        total = sum(value.square().sum() for value in first)
        return dict(enumerate(torch.autograd.grad(total, leaves, materialize_grads=True)))

    check(differentiated(case).no_second, lambda: assert_close(second(junk), second(values)))


@pytest.mark.parametrize("target", ["utterance", "frames"])
@pytest.mark.parametrize("detach", ["utterance", "frames"])
def test_derivatives_beside_a_detached_side_equal_finite_differences(target: str, detach: str) -> None:
    case = Case(FrameUtteranceAlignmentLoss, {"target": target, "detach": detach})
    module, inputs = case.build(), make_inputs(case, MASK)
    followed = frame_inputs(inputs) if detach == "utterance" else ["utterance_logits"]

    def function(*values: Tensor) -> Tensor:
        constant = {name: value.detach() for name, value in inputs.items()}
        return run(module, constant | dict(zip(followed, values, strict=True)), MASK)["loss"]

    leaves = tuple(inputs[name] for name in followed)
    assert gradcheck(function, leaves)
    assert gradgradcheck(function, leaves)


@pytest.mark.parametrize("target", ["utterance", "frames"])
def test_derivatives_at_a_weight_of_zero_equal_finite_differences(target: str) -> None:
    frame_logits, logits = torch.randn(2, 4, 3).double(), torch.randn(2, 3).double()
    weights = torch.tensor([[0.5, 0.0, 0.5, 0.0], [0.0, 0.0, 1.0, 0.0]]).double()
    leaves = tuple(value.requires_grad_() for value in (frame_logits, logits, weights))
    assert gradcheck(FrameUtteranceAlignmentLoss(target=target), leaves)
    assert gradgradcheck(FrameUtteranceAlignmentLoss(target=target), leaves)


def test_a_gradient_penalty_trains_beside_a_zero_frame() -> None:
    """Second derivatives stay finite where the cosine jumps, and are zero there."""
    frames, anchor = torch.randn(1, 3, 4).double(), torch.randn(1, 4).double().requires_grad_()
    frames[0, 1] = 0
    frames.requires_grad_()
    (first,) = torch.autograd.grad(EmotionalAttentionLoss()(frames, anchor), frames, create_graph=True)
    second = torch.autograd.grad(first.square().sum(), [frames, anchor])
    assert all(value.isfinite().all() for value in second)
    assert not second[0][0, 1].any()
