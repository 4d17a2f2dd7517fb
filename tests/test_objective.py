import copy
import math
import re
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from cases import (
    CLASSES,
    DIM,
    MASKS,
    OBJECTIVE,
    Case,
    assert_close,
    assert_equal,
    assert_matches_oracle,
)
from framealign import (
    AlignmentObjective,
    CLSSelfAttentionPooling,
    EmotionalAttentionLoss,
    FrameUtteranceAlignmentLoss,
    MeanPooling,
    Objective,
    Pooled,
    StatisticsPooling,
)
from framealign.functional import alignment_objective

MASK = MASKS["an empty utterance"]
LABELS = torch.tensor([0, 1, 2, 0])


@pytest.fixture
def classifier() -> nn.Linear:
    return nn.Linear(DIM, CLASSES)


@pytest.fixture
def pooled() -> Pooled:
    return CLSSelfAttentionPooling(DIM)(torch.randn(*MASK.shape, DIM), MASK)


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("case", OBJECTIVE, ids=str)
def test_values_and_gradients_equal_the_reference(case: Case, mask: Tensor) -> None:
    assert_matches_oracle(case, mask)


def test_is_the_snippet_of_the_contract_without_the_empty_utterance(pooled: Pooled, classifier: nn.Linear) -> None:
    result = AlignmentObjective()(pooled, LABELS, classifier, MASK)
    logits, real = classifier(pooled.utterance), MASK.any(dim=1)
    assert isinstance(result, Objective)
    assert_close(result.logits, logits)
    assert_close(result.cross_entropy, F.cross_entropy(logits[real], LABELS[real]))
    assert_close(result.eal, EmotionalAttentionLoss()(pooled.frames, pooled.cls, MASK))
    fual = FrameUtteranceAlignmentLoss()(classifier(pooled.frames), logits, pooled.weights, MASK)
    assert_close(result.fual, fual)
    assert_close(result.loss, result.cross_entropy + 0.05 * result.eal + 0.05 * result.fual)


@pytest.mark.parametrize("smoothing", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("class_weights", [None, torch.tensor([0.2, 1.0, 4.0]), torch.tensor([0.0, 1.0, 0.0])])
def test_cross_entropy_is_torch_s_own_on_real_labelled_utterances(
    pooled: Pooled, classifier: nn.Linear, class_weights: Tensor | None, smoothing: float
) -> None:
    labels = torch.tensor([1, 0, -100, 2])
    objective = AlignmentObjective(class_weights=class_weights, label_smoothing=smoothing)
    counted = [0, 3]  # the second has no frames, the third no label
    logits = classifier(pooled.utterance)[counted]
    expected = F.cross_entropy(logits, labels[counted], class_weights, label_smoothing=smoothing)
    assert_close(objective(pooled, labels, classifier, MASK).cross_entropy, expected)


def test_unlabelled_utterances_still_align(pooled: Pooled, classifier: nn.Linear) -> None:
    labelled = AlignmentObjective()(pooled, LABELS, classifier, MASK)
    unlabelled = AlignmentObjective()(pooled, torch.full((4,), -100), classifier, MASK)
    assert unlabelled.cross_entropy == 0
    assert unlabelled.cross_entropy.requires_grad
    assert_equal(unlabelled.eal, labelled.eal)
    assert_equal(unlabelled.fual, labelled.fual)


def test_an_utterance_without_a_label_sends_back_zero_whatever_its_logits(pooled: Pooled) -> None:
    logits = torch.randn(4, CLASSES)
    logits[2] = torch.inf
    item = pooled._replace(utterance=logits.requires_grad_())
    objective = AlignmentObjective(eal_weight=0, fual_weight=0, label_smoothing=0.1)
    loss = objective(item, torch.tensor([0, 1, -100, 2]), nn.Identity(), MASK).loss
    (gradient,) = torch.autograd.grad(loss, logits)
    assert loss.isfinite()
    assert not gradient[2].any()
    assert gradient[[0, 3]].abs().min() > 0


def test_a_label_that_weighs_nothing_is_no_division_by_zero(pooled: Pooled, classifier: nn.Linear) -> None:
    objective = AlignmentObjective(class_weights=torch.tensor([0.0, 1.0, 1.0]))
    assert objective(pooled, torch.zeros(4, dtype=torch.int64), classifier, MASK).cross_entropy == 0


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32])
def test_labels_may_be_of_any_integer_dtype(pooled: Pooled, classifier: nn.Linear, dtype: torch.dtype) -> None:
    objective = AlignmentObjective(negative_margin=0.1)
    assert_equal(objective(pooled, LABELS.to(dtype), classifier, MASK), objective(pooled, LABELS, classifier, MASK))


class Recorder(nn.Module):
    """A classifier that notes the number of axes of what it was called with."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.axes = nn.Linear(DIM, CLASSES), []

    def forward(self, x: Tensor) -> Tensor:
        self.axes.append(x.ndim)
        return self.linear(x)


class TestAWeightOfZero:
    def test_of_fual_never_classifies_frames(self, pooled: Pooled) -> None:
        classifier = Recorder()
        result = AlignmentObjective(fual_weight=0)(pooled, LABELS, classifier, MASK)
        assert classifier.axes == [2]
        assert result.fual == 0
        assert not result.fual.requires_grad
        assert result.eal > 0
        AlignmentObjective()(pooled, LABELS, classifier, MASK)
        assert classifier.axes == [2, 2, 3]

    def test_of_eal_needs_no_anchor_and_reads_no_cls(self, pooled: Pooled, classifier: nn.Linear) -> None:
        broken = pooled._replace(cls=torch.full_like(pooled.cls, torch.nan))
        result = AlignmentObjective(eal_weight=0)(broken, LABELS, classifier, MASK)
        assert result.eal == 0
        assert not result.eal.requires_grad
        assert result.loss.isfinite()

    def test_of_both_takes_any_width(self) -> None:
        pooled = StatisticsPooling()(torch.randn(2, 3, DIM))
        objective = AlignmentObjective(eal_weight=0, fual_weight=0)
        result = objective(pooled, LABELS[:2], nn.Linear(2 * DIM, CLASSES))
        assert_equal(result.loss, result.cross_entropy)


class TestAnchor:
    def test_is_the_cls_where_there_is_one(self, pooled: Pooled, classifier: nn.Linear) -> None:
        result = AlignmentObjective()(pooled._replace(utterance=pooled.frames[:, 0]), LABELS, classifier, MASK)
        assert_close(result.eal, EmotionalAttentionLoss()(pooled.frames, pooled.cls, MASK))

    def test_else_is_the_utterance(self, classifier: nn.Linear) -> None:
        pooled = MeanPooling()(torch.randn(*MASK.shape, DIM), MASK)
        result = AlignmentObjective()(pooled, LABELS, classifier, MASK)
        assert_close(result.eal, EmotionalAttentionLoss()(pooled.frames, pooled.utterance, MASK))

    def test_else_is_an_error_that_says_so(self) -> None:
        pooled = StatisticsPooling()(torch.randn(2, 3, DIM))
        with pytest.raises(
            ValueError, match=r"`pooled` must have a `cls`, or an `utterance` as wide .* got no cls, an"
        ):
            AlignmentObjective()(pooled, LABELS[:2], nn.Linear(2 * DIM, CLASSES))
        with pytest.raises(
            ValueError, match=r"`pooled` must have an `utterance` as wide as its `frames`.*got 16 and 8"
        ):
            AlignmentObjective(eal_weight=0)(pooled, LABELS[:2], nn.Linear(2 * DIM, CLASSES))


@pytest.mark.parametrize(
    "classifier", [nn.Linear(DIM, CLASSES), nn.Sequential(nn.Linear(DIM, CLASSES))], ids=["read", "called"]
)
def test_junk_in_the_padding_of_a_hand_made_pooled_changes_no_bit(pooled: Pooled, classifier: nn.Module) -> None:
    """The poolings here write zeros there, and for the CLS of an utterance without frames; another's may not."""
    leaf = Pooled(*(value.detach() for value in pooled))
    junk = leaf._replace(
        frames=leaf.frames.masked_fill(~MASK[..., None], torch.nan),
        weights=leaf.weights.masked_fill(~MASK, torch.inf),
        cls=leaf.cls.masked_fill(~MASK.any(dim=1, keepdim=True), torch.nan),
    )
    results = []
    for item in (leaf, junk):
        item = item._replace(frames=item.frames.requires_grad_(), cls=item.cls.requires_grad_())
        result = AlignmentObjective(negative_margin=0.1)(item, LABELS, classifier, MASK)
        leaves = [item.frames, item.cls, *classifier.parameters()]
        results.append([*result, *torch.autograd.grad(result.loss, leaves)])
    assert_equal(results[1], results[0])


def test_any_callable_is_a_classifier(pooled: Pooled) -> None:
    deep = nn.Sequential(nn.Linear(DIM, 5), nn.ReLU(), nn.Linear(5, CLASSES))
    through_lambda = AlignmentObjective()(pooled, LABELS, lambda x: deep(x), MASK)
    assert_equal(AlignmentObjective()(pooled, LABELS, deep, MASK), through_lambda)


def test_hooks_and_parametrizations_of_the_classifier_are_honoured(pooled: Pooled, classifier: nn.Linear) -> None:
    doubled = copy.deepcopy(classifier)
    doubled.register_forward_hook(lambda module, inputs, output: 2 * output)
    expected = AlignmentObjective()(pooled, LABELS, lambda x: 2 * classifier(x), MASK)
    assert_equal(AlignmentObjective()(pooled, LABELS, doubled, MASK), expected)
    normed = nn.utils.parametrizations.weight_norm(copy.deepcopy(classifier))
    expected = AlignmentObjective()(pooled, LABELS, lambda x: normed(x), MASK)
    assert_equal(AlignmentObjective()(pooled, LABELS, normed, MASK), expected)


@pytest.mark.parametrize(
    "register",
    [
        nn.Module.register_forward_hook,
        nn.Module.register_forward_pre_hook,
        nn.Module.register_full_backward_hook,
        nn.Module.register_full_backward_pre_hook,
        lambda _, hook: nn.modules.module.register_module_forward_hook(hook),
        lambda _, hook: nn.modules.module.register_module_forward_pre_hook(hook),
        lambda _, hook: nn.modules.module.register_module_full_backward_hook(hook),
        lambda _, hook: nn.modules.module.register_module_full_backward_pre_hook(hook),
    ],
    ids=["forward", "forward pre", "backward", "backward pre",
         "global forward", "global forward pre", "global backward", "global backward pre"],
)  # fmt: skip
def test_a_hook_of_the_classifier_sees_the_frames(
    pooled: Pooled, classifier: nn.Linear, register: Callable[..., RemovableHandle]
) -> None:
    axes = []

    def note(module: nn.Module, first: tuple[Tensor, ...], *others: object) -> None:
        if module is classifier:
            axes.append(first[0].ndim)

    handle = register(classifier, note)
    try:
        AlignmentObjective()(pooled, LABELS, classifier, MASK).loss.backward()
    finally:
        handle.remove()
    assert sorted(axes) == [2, 3]


def test_a_subclass_of_the_linear_layer_is_called(pooled: Pooled) -> None:
    class Doubled(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            return 2 * super().forward(input)

    doubled = Doubled(DIM, CLASSES)
    through_lambda = AlignmentObjective()(pooled, LABELS, lambda x: doubled(x), MASK)
    assert_equal(AlignmentObjective()(pooled, LABELS, doubled, MASK), through_lambda)


def test_class_weights_are_a_buffer_and_there_are_no_parameters() -> None:
    objective = AlignmentObjective(class_weights=torch.ones(3))
    assert not list(objective.parameters())
    assert objective.double().class_weights.dtype == torch.float64


def test_class_weights_are_an_option_and_no_state() -> None:
    """As margins are: what was trained with weights loads without them, and the other way round."""
    weighted, plain = AlignmentObjective(class_weights=torch.ones(3)), AlignmentObjective()
    for one, other in ((weighted, plain), (plain, weighted)):
        other.load_state_dict(one.state_dict())
    assert_equal(weighted.class_weights, torch.ones(3))
    assert plain.class_weights is None


def test_repr_shows_the_options() -> None:
    text = repr(AlignmentObjective(fual_weight=0.1, detach="frames", label_smoothing=0.2))
    assert text == (
        "AlignmentObjective(margin=0.8, beta=1.0, negative_margin=None, eal_weight=0.05, fual_weight=0.1, "
        "target='utterance', detach='frames', label_smoothing=0.2)"
    )


def test_each_refusal_names_the_argument_and_what_it_got(pooled: Pooled, classifier: nn.Linear) -> None:
    objective = AlignmentObjective()
    for name in ("eal_weight", "fual_weight"):
        for value in (-0.1, math.nan, math.inf):
            with pytest.raises(ValueError, match=rf"`{name}` must be a finite number in \[0, inf\), got {value}"):
                AlignmentObjective(**{name: value})
        with pytest.raises(TypeError, match=rf"`{name}` must be a number, got bool"):
            AlignmentObjective(**{name: True})
    with pytest.raises(ValueError, match=r"`label_smoothing` must be a finite number in \[0, 1\], got 1.1"):
        AlignmentObjective(label_smoothing=1.1)
    with pytest.raises(ValueError, match=r"`margin` must be a finite number in \[-1, 1\], got 2"):
        AlignmentObjective(margin=2)
    with pytest.raises(ValueError, match=r"`target` must be one of 'utterance', 'frames', got 'cls'"):
        AlignmentObjective(target="cls")
    with pytest.raises(TypeError, match=r"`class_weights` must be a tensor of shape \(classes\), got list"):
        AlignmentObjective(class_weights=[1.0, 2.0])
    with pytest.raises(TypeError, match=r"`class_weights` must be floating point, got torch.int64"):
        AlignmentObjective(class_weights=torch.tensor([1, 2]))
    with pytest.raises(ValueError, match=r"`class_weights` must have values, got a meta tensor"):
        AlignmentObjective(class_weights=torch.ones(2, device="meta"))
    with pytest.raises(
        ValueError, match=r"`class_weights` must have shape \(classes\) = \(3,\) to match `classifier\("
    ):
        AlignmentObjective(class_weights=torch.ones(2))(pooled, LABELS, classifier, MASK)
    with pytest.raises(TypeError, match=r"`pooled` must be the Pooled that a pooling returns, got Tensor"):
        objective(pooled.frames, LABELS, classifier, MASK)
    with pytest.raises(
        ValueError, match=r"`labels` must have shape \(batch\) = \(4,\) to match `pooled.utterance`, got"
    ):
        objective(pooled, LABELS[:3], classifier, MASK)
    with pytest.raises(TypeError, match=r"`labels` must be integer class indices, got torch.float32"):
        objective(pooled, LABELS.float(), classifier, MASK)
    with pytest.raises(ValueError, match=r"`labels` must be on the device of `pooled.utterance`, cpu, got meta"):
        objective(pooled, LABELS.to("meta"), classifier, MASK)
    with pytest.raises(
        ValueError, match=r"`mask` must have shape .* = \(4, 5\) to match `pooled.frames`, got \(4, 4\)"
    ):
        objective(pooled, LABELS, classifier, MASK[:, 1:])
    with pytest.raises(
        ValueError, match=r"`classifier\(pooled.utterance\)` must have shape \(batch, classes\), got \(4,"
    ):
        objective(pooled, LABELS, lambda x: classifier(x)[..., None], MASK)
    with pytest.raises(ValueError, match=r"`pooled.frames` must have shape \(batch, time, dim\), got \(4, 8\)"):
        objective(pooled._replace(frames=pooled.frames[:, 0]), LABELS, classifier, MASK)
    with pytest.raises(ValueError, match=r"`negative_margin` must be a finite number in \[-1, 1\], got 2"):
        AlignmentObjective(negative_margin=2)
    with pytest.raises(ValueError, match=r"`detach` must be one of None, 'utterance', 'frames', got 'cls'"):
        AlignmentObjective(detach="cls")


class TestOnePass:
    FRAMES, CLS, WEIGHT, BIAS = torch.randn(4, 5, DIM), torch.randn(4, DIM), torch.randn(CLASSES, DIM), torch.randn(3)

    def objective(self, **changes: object) -> Objective:
        named = {"frames": self.FRAMES, "cls": self.CLS, "labels": LABELS, "weight": self.WEIGHT, "bias": self.BIAS}
        return alignment_objective(**named | {"mask": MASK} | changes)

    def test_its_temperature_is_a_tenth_and_only_the_cosine_s(self) -> None:
        cosine = self.objective(similarity="cosine")
        assert_equal(cosine, self.objective(similarity="cosine", temperature=0.1))
        assert (cosine.fual - self.objective(similarity="cosine", temperature=1.1).fual).abs() > 1e-3
        assert_equal(self.objective(), self.objective(temperature=1.1))

    @pytest.mark.parametrize("similarity", ["dot", "cosine"])
    def test_the_other_terms_do_not_depend_on_eal(self, similarity: str) -> None:
        """Whose norms it then does without, if the attention does."""
        with_eal, without = self.objective(similarity=similarity), self.objective(similarity=similarity, eal_weight=0)
        assert without.eal == 0
        for name in ("cross_entropy", "fual", "logits"):
            assert_close(getattr(without, name), getattr(with_eal, name))

    @pytest.mark.parametrize("wide", ["frames", "cls", "weight"])
    def test_computes_in_the_widest_dtype(self, wide: str) -> None:
        names = {"frames": self.FRAMES, "cls": self.CLS, "weight": self.WEIGHT, "bias": self.BIAS}
        exact = self.objective(**{name: value.double() for name, value in names.items()})
        found = self.objective(**{wide: names[wide].double()})
        assert found.loss.dtype == torch.float64
        assert_close(found._asdict(), exact._asdict())

    @pytest.mark.parametrize(
        ("changes", "error", "message"),
        [
            ({"cls": CLS.long()}, TypeError, "`cls` must be floating point, got torch.int64"),
            ({"cls": CLS[0]}, ValueError, "`cls` must have shape (batch, dim), got (8,)"),
            ({"cls": CLS[:3]}, ValueError, "`cls` must have shape (batch, dim) = (4, 8) to match `frames`, got (3, 8)"),
            ({"labels": LABELS[:3]}, ValueError, "`labels` must have shape (batch) = (4,) to match `frames`, got (3,)"),
            ({"weight": WEIGHT.long()}, TypeError, "`weight` must be floating point, got torch.int64"),
            ({"weight": WEIGHT[0]}, ValueError, "`weight` must have shape (classes, dim), got (8,)"),
            (
                {"weight": WEIGHT[:, 1:]},
                ValueError,
                "`weight` must have shape (classes, dim) = (3, 8) to match `frames`, got (3, 7)",
            ),
            ({"bias": BIAS.long()}, TypeError, "`bias` must be floating point, got torch.int64"),
            ({"bias": BIAS[None]}, ValueError, "`bias` must have shape (classes), got (1, 3)"),
            (
                {"class_weights": BIAS[1:]},
                ValueError,
                "`class_weights` must have shape (classes) = (3,) to match `weight`, got (2,)",
            ),
            ({"similarity": "sine"}, ValueError, "`similarity` must be one of 'dot', 'cosine', got 'sine'"),
            ({"temperature": 0.0}, ValueError, "`temperature` must be a finite number in (0, inf), got 0.0"),
            ({"backend": "cuda"}, ValueError, "`backend` must be one of 'auto', 'eager', 'triton', got 'cuda'"),
            ({"backend": "triton"}, RuntimeError, '`backend="triton"` cannot run: frames are on cpu'),
        ],
        ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
    )
    def test_each_refusal_names_the_argument_and_what_it_got(
        self, changes: dict[str, object], error: type[Exception], message: str
    ) -> None:
        with pytest.raises(error, match=re.escape(message)):
            self.objective(**changes)
