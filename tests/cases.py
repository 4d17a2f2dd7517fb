"""What the tests share: length patterns, the one tolerance table, and every module with each of its options.

A loss or a pooling is known to the suite by its record in `KINDS`, and nowhere else by its type.
"""

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

import framealign
import reference
from framealign import (
    AlignmentObjective,
    AttentivePooling,
    AttentiveStatisticsPooling,
    CLSSelfAttentionPooling,
    EmotionalAttentionLoss,
    FrameUtteranceAlignmentLoss,
    MaxPooling,
    MeanPooling,
    SelfAttentionPooling,
    StatisticsPooling,
)
from framealign.functional import alignment_objective

DIM, CLASSES = 8, 3

# One row for each utterance: # is a real frame, . is padding
_PATTERNS = {
    "full": ["#####", "#####", "#####"],
    "ragged": ["#####", "##...", "####.", "###.."],
    "holes": ["#.##.", ".###.", "..#.#"],
    "one frame": ["#....", "...#.", "#####"],
    "only one frame": ["#"],
    "an empty utterance": ["###..", ".....", "#.###", "####."],
    "all empty": ["...", "..."],
    "no time": ["", ""],
    "no batch": [],
}


def make_mask(rows: list[str]) -> Tensor:
    if not rows:
        return torch.zeros(0, 5, dtype=torch.bool)
    return torch.tensor([[frame == "#" for frame in row] for row in rows], dtype=torch.bool).reshape(len(rows), -1)


MASKS = {name: make_mask(rows) for name, rows in _PATTERNS.items()}

# The only tolerances of the suite, by the least precise dtype in the comparison
TOLERANCES = {
    torch.float64: {"rtol": 1e-8, "atol": 1e-10},
    torch.float32: {"rtol": 1e-4, "atol": 1e-5},
    torch.float16: {"rtol": 1e-2, "atol": 1e-2},
    torch.bfloat16: {"rtol": 5e-2, "atol": 5e-2},
}
# Of two ways to the same numbers, whose sums alone have another order; a part of each tensor's largest value
REORDERED = {torch.float64: 1e-12, torch.float32: 1e-6}

SHAPES = {"frames": "btd", "anchor": "bd", "frame_logits": "btc", "utterance_logits": "bc", "weights": "bt"}


# PyTorch's fused attention on the CPU has no such derivative, and says so
NO_SECOND = r"derivative for aten::_scaled_dot_product\w+_backward is not implemented"
NO_FORWARD = r"Trying to use forward AD with _scaled_dot_product\w+ that does not support it"


class Kind(NamedTuple):
    """What a module takes, how it is called, what it must give, and the options it is tried with.

    `call` takes the module, its inputs, the mask and `cu_seqlens`, and returns the outputs by name. `oracle` takes
    the module, each input as one real-frames-only entry for each utterance, the labels and the options; of an output
    with one entry for each frame it returns a list.
    """

    module: type[nn.Module]
    inputs: tuple[str, ...]
    call: Callable[..., dict[str, Tensor]]
    oracle: Callable[..., dict[str, Tensor | list[Tensor]]]
    options: list[Mapping[str, Any]]
    no_second: str | None = None  # the error instead of second derivatives, where there are none
    no_forward: str | None = None  # and instead of forward mode


class Case(NamedTuple):
    """A module and the options it is built with."""

    module: type[nn.Module]
    options: Mapping[str, Any] = {}

    def build(self, dtype: torch.dtype = torch.float64) -> nn.Module:
        """The module with every parameter moved off its initial value: zero biases would hide mistakes."""
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(1)
            module = self.module(**self.options).to(dtype)
            for parameter in module.parameters():
                parameter.add_(torch.randn(parameter.shape, dtype=dtype), alpha=0.2)
        return module

    @property
    def kind(self) -> Kind:
        return KINDS[self.module]

    @property
    def inputs(self) -> tuple[str, ...]:
        return self.kind.inputs

    def __str__(self) -> str:
        options = (f"{name}={value}" for name, value in self.options.items() if name != "dim")
        return re.sub(r"[\[\]\s]", "", f"{self.module.__name__}({','.join(options)})")


class Step(nn.Module):
    """A pooling, a linear classifier and the objective, as a training step uses them."""

    def __init__(self, pooling: Case, **options: Any) -> None:
        super().__init__()
        self.pooling = pooling.module(**pooling.options)
        self.classifier = nn.Linear(self.pooling.output_dim, CLASSES)
        self.objective = AlignmentObjective(**options)

    def forward(
        self, frames: Tensor, mask: Tensor | None, labels: Tensor, cu_seqlens: Tensor | None = None
    ) -> framealign.Objective:
        pooled = self.pooling(frames, mask, cu_seqlens=cu_seqlens)
        return self.objective(pooled, labels, self.classifier, mask, cu_seqlens=cu_seqlens)


class OnePass(nn.Module):
    """Frames and their CLS to the objective, in one function."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.classifier, self.options = nn.Linear(DIM, CLASSES), options

    def forward(
        self, frames: Tensor, cls: Tensor, mask: Tensor | None, labels: Tensor, cu_seqlens: Tensor | None = None
    ) -> framealign.Objective:
        classifier = self.classifier.weight, self.classifier.bias
        return alignment_objective(frames, cls, labels, *classifier, mask, cu_seqlens=cu_seqlens, **self.options)


# How each is called, and its oracle: (module, entries of each utterance by input, labels, **options) -> outputs ------

Entries = Mapping[str, list[Tensor]]


def call_pooling(
    module: nn.Module, inputs: Mapping[str, Tensor], mask: Tensor | None, cu_seqlens: Tensor | None
) -> dict[str, Tensor]:
    pooled = module(inputs["frames"], mask, cu_seqlens=cu_seqlens)
    return _fields(pooled, "utterance", "weights", "frames", "cls")


def pooled_alone(
    of_one: Callable[..., dict[str, Tensor]], module: nn.Module, entries: Entries, labels: list[int], **options: Any
) -> dict[str, Tensor | list[Tensor]]:
    """`of_one` is the oracle of one utterance that has frames; an utterance without any pools to zeros."""

    def pool(frames: Tensor) -> dict[str, Tensor]:
        if len(frames):
            return of_one(module, frames, **options)
        of_a_frame = of_one(module, frames.new_ones(1, DIM), **options)
        zeros = {name: torch.zeros_like(value.detach()) for name, value in of_a_frame.items()}
        return zeros | {"weights": zeros["weights"][:0], "frames": frames}

    *pooled, nothing = map(pool, [*entries["frames"], torch.zeros(0, DIM, dtype=dtype_of(entries["frames"]))])
    rows = {name: [item[name] for item in pooled] for name in nothing}
    return {
        name: found if _is_per_frame(name) else torch.stack([*found, nothing[name]])[:-1]
        for name, found in rows.items()
    }


def call_eal(
    module: nn.Module, inputs: Mapping[str, Tensor], mask: Tensor | None, cu_seqlens: Tensor | None
) -> dict[str, Tensor]:
    return {"loss": module(inputs["frames"], inputs["anchor"], mask, inputs["labels"], cu_seqlens=cu_seqlens)}


def eal_alone(module: nn.Module, entries: Entries, labels: list[int], **options: Any) -> dict[str, Tensor]:
    return {"loss": reference.emotional_attention_loss(entries["frames"], entries["anchor"], labels, **options)}


def call_fual(
    module: nn.Module, inputs: Mapping[str, Tensor], mask: Tensor | None, cu_seqlens: Tensor | None
) -> dict[str, Tensor]:
    logits = inputs["frame_logits"], inputs["utterance_logits"]
    return {"loss": module(*logits, inputs["weights"], mask, cu_seqlens=cu_seqlens)}


def fual_alone(module: nn.Module, entries: Entries, labels: list[int], **options: Any) -> dict[str, Tensor]:
    arguments = entries["frame_logits"], entries["utterance_logits"], entries["weights"]
    return {"loss": reference.frame_utterance_alignment_loss(*arguments, **options)}


def call_step(
    module: nn.Module, inputs: Mapping[str, Tensor], mask: Tensor | None, cu_seqlens: Tensor | None
) -> dict[str, Tensor]:
    return _terms(module(inputs["frames"], mask, inputs["labels"], cu_seqlens=cu_seqlens))


def step_alone(
    module: nn.Module, entries: Entries, labels: list[int], pooling: Case, **options: Any
) -> dict[str, Tensor]:
    pooled = pooling.kind.oracle(module.pooling, entries, labels, **pooling.options)
    utterances = [{name: found[i] for name, found in pooled.items()} for i in range(len(labels))]
    terms = reference.objective(utterances, labels, module.classifier, **options)
    return terms | {"logits": module.classifier(pooled["utterance"])}


def call_one_pass(
    module: nn.Module, inputs: Mapping[str, Tensor], mask: Tensor | None, cu_seqlens: Tensor | None
) -> dict[str, Tensor]:
    return _terms(module(inputs["frames"], inputs["anchor"], mask, inputs["labels"], cu_seqlens=cu_seqlens))


def one_pass_alone(
    module: nn.Module,
    entries: Entries,
    labels: list[int],
    similarity: str = "dot",
    temperature: float = 0.1,
    **options: Any,
) -> dict[str, Tensor]:
    zeros = torch.zeros(DIM, dtype=dtype_of(entries["frames"]))
    pooled = [
        reference.attend_to_cls(frames, cls, similarity, temperature)
        if len(frames)
        else {"utterance": zeros, "frames": frames}
        for frames, cls in zip(entries["frames"], entries["anchor"], strict=True)
    ]
    utterances = torch.stack([*(item["utterance"] for item in pooled), zeros])[:-1]
    terms = reference.objective(pooled, labels, module.classifier, **options)
    return terms | {"logits": module.classifier(utterances)}


def dtype_of(rows: list[Tensor]) -> torch.dtype:
    """float64, in which the oracle computes, unless it is asked for plain PyTorch in another."""
    return rows[0].dtype if rows else torch.float64


def _terms(objective: framealign.Objective) -> dict[str, Tensor]:
    return _fields(objective, "loss", "cross_entropy", "eal", "fual", "logits")


def _fields(result: Any, *names: str) -> dict[str, Tensor]:
    # By name: the compiler of torch 2.6 traces neither `_asdict` nor `_fields`
    outputs = {name: getattr(result, name) for name in names}
    return {name: value for name, value in outputs.items() if value is not None}


def _is_per_frame(name: str) -> bool:
    return SHAPES.get(name, "").startswith("bt")


# Every module and its options -------------------------------------------------------------------------------------


def pooling_kind(
    module: type[nn.Module], of_one: Callable[..., dict[str, Tensor]], *options: Mapping[str, Any], **more: Any
) -> Kind:
    with_dim = [{"dim": DIM, **each} for each in options]
    return Kind(module, ("frames",), call_pooling, partial(pooled_alone, of_one), with_dim, **more)


_POOLING_KINDS = [
    pooling_kind(MeanPooling, reference.mean_pooling, {}),
    pooling_kind(MaxPooling, reference.max_pooling, {}),
    pooling_kind(StatisticsPooling, reference.statistics_pooling, {}),
    pooling_kind(AttentivePooling, reference.attentive_pooling, {}, {"hidden_dim": None}),
    pooling_kind(AttentiveStatisticsPooling, reference.attentive_statistics_pooling, {}, {"hidden_dim": None}),
    pooling_kind(
        SelfAttentionPooling,
        reference.self_attention_pooling,
        {},
        {"num_heads": 2, "depth": 2, "norm_first": True, "hidden_dim": None},
        {"feedforward_dim": 0, "hidden_dim": 5},
        no_second=NO_SECOND,
        no_forward=NO_FORWARD,
    ),
    pooling_kind(
        CLSSelfAttentionPooling,
        reference.cls_self_attention_pooling,
        {},
        {"similarity": "cosine"},
        {"similarity": "cosine", "temperature": 0.5, "aggregate": "cls"},
        {"aggregate": "sum", "num_heads": 1, "depth": 2},
        {"norm_first": True, "feedforward_dim": 5},
        {"feedforward_dim": 0},
        {"feedforward_dim": 0, "norm_first": True, "depth": 2},
        no_second=NO_SECOND,
        no_forward=NO_FORWARD,
    ),
]
_LOSS_KINDS = [
    Kind(
        EmotionalAttentionLoss,
        inputs=("frames", "anchor"),
        call=call_eal,
        oracle=eal_alone,
        options=[
            {},
            {"negative_margin": 0.2},
            {"margin": 0.4, "beta": 10.0},
            {"negative_margin": -0.1, "beta": 5.0, "reduction": "none"},
            {"reduction": "frames"},
            {"reduction": "none"},
            {"reduction": "sum"},
        ],
    ),
    Kind(
        FrameUtteranceAlignmentLoss,
        inputs=("frame_logits", "utterance_logits", "weights"),
        call=call_fual,
        oracle=fual_alone,
        options=[
            {},
            {"target": "frames"},
            {"detach": "utterance"},
            {"detach": "frames"},
            {"target": "frames", "detach": "utterance", "reduction": "sum"},
            {"target": "frames", "detach": "frames", "reduction": "none"},
        ],
    ),
]
_CLASS_WEIGHTS = torch.tensor([0.5, 1.0, 3.0])
_OBJECTIVE_KINDS = [
    Kind(
        Step,
        inputs=("frames",),
        call=call_step,
        oracle=step_alone,
        options=[
            {"pooling": Case(CLSSelfAttentionPooling, {"dim": DIM})},
            {
                "pooling": Case(AttentivePooling, {"dim": DIM}),
                "margin": 0.6,
                "beta": 10.0,
                "negative_margin": 0.1,
                "eal_weight": 0.7,
                "fual_weight": 0.9,
                "target": "frames",
                "detach": "utterance",
                "label_smoothing": 0.2,
                "class_weights": _CLASS_WEIGHTS,
            },
            {"pooling": Case(StatisticsPooling, {"dim": DIM}), "eal_weight": 0.0, "fual_weight": 0.0},
        ],
    ),
    Kind(
        OnePass,
        inputs=("frames", "anchor"),
        call=call_one_pass,
        oracle=one_pass_alone,
        options=[
            {},
            {"similarity": "cosine", "temperature": 0.5, "negative_margin": 0.1, "eal_weight": 0.7, "fual_weight": 0.9},
            {"eal_weight": 0.0, "target": "frames", "detach": "frames", "class_weights": _CLASS_WEIGHTS},
        ],
    ),
]
KINDS = {kind.module: kind for kind in (*_POOLING_KINDS, *_LOSS_KINDS, *_OBJECTIVE_KINDS)}


def cases_of(*modules: type[nn.Module]) -> list[Case]:
    return [Case(module, options) for module in modules for options in KINDS[module].options]


POOLINGS, LOSSES, OBJECTIVE = (
    cases_of(*(kind.module for kind in kinds)) for kinds in (_POOLING_KINDS, _LOSS_KINDS, _OBJECTIVE_KINDS)
)
EVERYTHING = [*POOLINGS, *LOSSES, *OBJECTIVE]


def one_of_each(cases: list[Case]) -> list[Case]:
    """The first case of each module."""
    return list({case.module: case for case in reversed(cases)}.values())[::-1]


def make_inputs(case: Case, mask: Tensor, dtype: torch.dtype = torch.float64, seed: int = 0) -> dict[str, Tensor]:
    """Random inputs of the case for a batch with this mask, `labels` among them."""
    generator = torch.Generator().manual_seed(seed)
    sizes = {"b": mask.shape[0], "t": mask.shape[1], "d": DIM, "c": CLASSES}
    inputs = {}
    for name in case.inputs:
        values = torch.randn([sizes[axis] for axis in SHAPES[name]], generator=generator, dtype=torch.float64)
        if name == "weights":  # as a pooling gives them
            values = values.masked_fill(~mask, -1e9).softmax(dim=1) if mask.shape[1] else values
        inputs[name] = values.to(dtype).requires_grad_()
    return inputs | {"labels": torch.arange(mask.shape[0]) % CLASSES}


def run(
    module: nn.Module, inputs: Mapping[str, Tensor], mask: Tensor | None, cu_seqlens: Tensor | None = None
) -> dict[str, Tensor]:
    """Call any module; its outputs by name."""
    return KINDS[type(module)].call(module, inputs, mask, cu_seqlens)


def frame_inputs(inputs: Mapping[str, Tensor]) -> list[str]:
    """Names of the inputs that have one entry for each frame."""
    return [name for name in inputs if _is_per_frame(name)]


def pack_inputs(inputs: Mapping[str, Tensor], mask: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """The same utterances without their padding; the packed tensors are leaves of their own."""
    packed = {name: inputs[name].detach()[mask].requires_grad_() for name in frame_inputs(inputs)}
    lengths = mask.sum(dim=1)
    return dict(inputs) | packed, torch.cat([lengths.new_zeros(1), lengths.cumsum(0)]).int()


def gradients(outputs: Mapping[str, Tensor], module: nn.Module, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Gradients of a fixed random projection of the outputs (their padding included), by input and parameter."""
    leaves = {name: value for name, value in inputs.items() if value.requires_grad} | dict(module.named_parameters())
    generator = torch.Generator().manual_seed(2)
    total = torch.zeros(())
    for output in outputs.values():
        direction = torch.randn(output.shape, generator=generator, dtype=torch.float64).to(output.dtype)
        total = total + (output * direction).sum()
    if not total.requires_grad:
        return {name: torch.zeros_like(leaf) for name, leaf in leaves.items()}
    found = torch.autograd.grad(total, list(leaves.values()), allow_unused=True, materialize_grads=True)
    return dict(zip(leaves, found, strict=True))


def values_and_gradients(
    module: nn.Module, inputs: Mapping[str, Tensor], mask: Tensor | None, cu_seqlens: Tensor | None = None
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    outputs = run(module, inputs, mask, cu_seqlens)
    return outputs, gradients(outputs, module, inputs)


def oracle(case: Case, module: nn.Module, inputs: Mapping[str, Tensor], mask: Tensor) -> dict[str, Tensor]:
    """The outputs that `reference` expects, laid out as a padded batch."""
    rows = [row.nonzero()[:, 0] for row in mask]
    entries = {
        name: [value[i][rows[i]] if _is_per_frame(name) else value[i] for i in range(len(rows))]
        for name, value in inputs.items()
    }
    expected = case.kind.oracle(module, entries, inputs["labels"].tolist(), **case.options)
    sizes = {"b": mask.shape[0], "t": mask.shape[1], "d": DIM}
    for name, value in expected.items():
        if isinstance(value, list):
            padded = torch.zeros([sizes[axis] for axis in SHAPES[name]], dtype=dtype_of(value))
            for i, found in enumerate(value):
                padded = padded.index_put((torch.tensor(i), rows[i]), found)
            expected[name] = padded
    return expected


def assert_close(actual: Any, expected: Any, dtype: torch.dtype | None = None) -> None:
    """Equal within the tolerance of `dtype`, by default that of `actual`; tensors, or dicts of them."""
    if isinstance(actual, dict):
        assert actual.keys() == expected.keys()
        for name in actual:
            assert_close(actual[name], expected[name], dtype)
        return
    tolerance = TOLERANCES[dtype or actual.dtype]
    torch.testing.assert_close(actual, torch.as_tensor(expected, dtype=actual.dtype), **tolerance)


def assert_close_to_rounding(actual: Any, expected: Any, dtype: torch.dtype | None = None) -> None:
    """Equal but for the order of sums in `dtype`, to a part of the largest value, or of 1; or dicts of such."""
    if not isinstance(actual, Mapping):
        actual, expected = {"value": actual}, {"value": expected}
    assert actual.keys() == expected.keys()
    for name, value in actual.items():
        scale = max(1.0, expected[name].abs().max().item()) if expected[name].numel() else 1.0
        tolerance = REORDERED[dtype or value.dtype] * scale
        torch.testing.assert_close(
            value, expected[name], rtol=0, atol=tolerance, msg=lambda text, n=name: f"{n}: {text}"
        )


def assert_equal(actual: Any, expected: Any) -> None:
    """Bitwise equal; a nan equals a nan."""
    torch.testing.assert_close(actual, expected, rtol=0, atol=0, equal_nan=True)


def assert_matches_oracle(case: Case, mask: Tensor, seed: int = 0) -> None:
    """Values, and gradients to inputs and parameters, equal those of the float64 reference."""
    module, inputs = case.build(), make_inputs(case, mask, seed=seed)
    outputs, found = values_and_gradients(module, inputs, mask)
    expected = oracle(case, module, inputs, mask)
    assert_close(outputs, expected)
    assert_close(found, gradients(expected, module, inputs))
