"""What the tests share: length patterns, the one tolerance table, and every module with each of its options."""

import re
from collections.abc import Mapping
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

SHAPES = {"frames": "btd", "anchor": "bd", "frame_logits": "btc", "utterance_logits": "bc", "weights": "bt"}


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
    def inputs(self) -> tuple[str, ...]:
        if self.module in (EmotionalAttentionLoss, OnePass):
            return ("frames", "anchor")
        if self.module is FrameUtteranceAlignmentLoss:
            return ("frame_logits", "utterance_logits", "weights")
        return ("frames",)

    def __str__(self) -> str:
        if self.module is Step:
            return f"Step({self.options['pooling'].module.__name__})"
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


def _cases(module: type[nn.Module], *options: Mapping[str, Any], **common: Any) -> list[Case]:
    return [Case(module, common | dict(option)) for option in options]


POOLINGS = [
    *_cases(MeanPooling, {}, dim=DIM),
    *_cases(MaxPooling, {}, dim=DIM),
    *_cases(StatisticsPooling, {}, dim=DIM),
    *_cases(AttentivePooling, {}, {"hidden_dim": None}, dim=DIM),
    *_cases(AttentiveStatisticsPooling, {}, {"hidden_dim": None}, dim=DIM),
    *_cases(
        SelfAttentionPooling,
        {},
        {"num_heads": 2, "depth": 2, "norm_first": True, "hidden_dim": None},
        {"feedforward_dim": 0, "hidden_dim": 5},
        dim=DIM,
    ),
    *_cases(
        CLSSelfAttentionPooling,
        {},
        {"similarity": "cosine"},
        {"similarity": "cosine", "temperature": 0.5, "aggregate": "cls"},
        {"aggregate": "sum", "num_heads": 1, "depth": 2},
        {"norm_first": True, "feedforward_dim": 5},
        {"feedforward_dim": 0},
        {"feedforward_dim": 0, "norm_first": True, "depth": 2},
        dim=DIM,
    ),
]
EAL = _cases(
    EmotionalAttentionLoss,
    {},
    {"negative_margin": 0.2},
    {"margin": 0.4, "beta": 10.0},
    {"negative_margin": -0.1, "beta": 5.0, "reduction": "none"},
    {"reduction": "frames"},
    {"reduction": "none"},
    {"reduction": "sum"},
)
FUAL = _cases(
    FrameUtteranceAlignmentLoss,
    {},
    {"target": "frames"},
    {"detach": "utterance"},
    {"detach": "frames"},
    {"target": "frames", "detach": "utterance", "reduction": "sum"},
    {"target": "frames", "detach": "frames", "reduction": "none"},
)
OBJECTIVE = [
    Case(Step, {"pooling": Case(CLSSelfAttentionPooling, {"dim": DIM})}),
    Case(
        Step,
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
            "class_weights": torch.tensor([0.5, 1.0, 3.0]),
        },
    ),
    Case(Step, {"pooling": Case(StatisticsPooling, {"dim": DIM}), "eal_weight": 0.0, "fual_weight": 0.0}),
]
OBJECTIVE += _cases(
    OnePass,
    {},
    {"similarity": "cosine", "temperature": 0.5, "negative_margin": 0.1, "eal_weight": 0.7, "fual_weight": 0.9},
    {"eal_weight": 0.0, "target": "frames", "detach": "frames", "class_weights": torch.tensor([0.5, 1.0, 3.0])},
)
LOSSES = [*EAL, *FUAL]
EVERYTHING = [*POOLINGS, *LOSSES, *OBJECTIVE]


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
    packed = {"cu_seqlens": cu_seqlens}
    if isinstance(module, EmotionalAttentionLoss):
        return {"loss": module(inputs["frames"], inputs["anchor"], mask, inputs["labels"], **packed)}
    if isinstance(module, FrameUtteranceAlignmentLoss):
        logits = inputs["frame_logits"], inputs["utterance_logits"]
        return {"loss": module(*logits, inputs["weights"], mask, **packed)}
    # Fields by name: the compiler of torch 2.6 traces neither `_asdict` nor `_fields`
    if isinstance(module, Step | OnePass):
        leading = (inputs["frames"],) if isinstance(module, Step) else (inputs["frames"], inputs["anchor"])
        result = module(*leading, mask, inputs["labels"], **packed)
        names = ("loss", "cross_entropy", "eal", "fual", "logits")
    else:
        result = module(inputs["frames"], mask, **packed)
        names = ("utterance", "weights", "frames", "cls")
    outputs = {name: getattr(result, name) for name in names}
    return {name: value for name, value in outputs.items() if value is not None}


def frame_inputs(inputs: Mapping[str, Tensor]) -> list[str]:
    """Names of the inputs that have one entry for each frame."""
    return [name for name in inputs if SHAPES.get(name, "").startswith("bt")]


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
    alone = {
        name: [value[i][rows[i]] if name in frame_inputs(inputs) else value[i] for i in range(len(rows))]
        for name, value in inputs.items()
    }
    labels = inputs["labels"].tolist()
    if case.module is EmotionalAttentionLoss:
        loss = reference.emotional_attention_loss(alone["frames"], alone["anchor"], labels, **case.options)
        return {"loss": loss}
    if case.module is FrameUtteranceAlignmentLoss:
        arguments = alone["frame_logits"], alone["utterance_logits"], alone["weights"]
        return {"loss": reference.frame_utterance_alignment_loss(*arguments, **case.options)}
    if case.module is OnePass:
        options = dict(case.options)
        similarity, temperature = options.pop("similarity", "dot"), options.pop("temperature", 0.1)
        pooled = [
            reference.attend_to_cls(frames, cls, similarity, temperature) if len(frames) else _nothing(frames, DIM)
            for frames, cls in zip(alone["frames"], alone["anchor"], strict=True)
        ]
        utterances = _stack([item["utterance"] for item in pooled], DIM)
        terms = reference.objective(pooled, labels, module.classifier, **options)
        return terms | {"logits": module.classifier(utterances)}
    if case.module is Step:
        options = dict(case.options)
        pooled = [_pool(options["pooling"], module.pooling, frames) for frames in alone["frames"]]
        del options["pooling"]
        terms = reference.objective(pooled, labels, module.classifier, **options)
        utterances = _stack([item["utterance"] for item in pooled], module.pooling.output_dim)
        return terms | {"logits": module.classifier(utterances)}

    pooled = [_pool(case, module, frames) for frames in alone["frames"]]
    outputs = {"utterance": _stack([item["utterance"] for item in pooled], module.output_dim)}
    for name, width in (("weights", ()), ("frames", (DIM,))):
        padded = inputs["frames"].new_zeros(*mask.shape, *width)
        for i, item in enumerate(pooled):
            padded = padded.index_put((torch.tensor(i), rows[i]), item[name])
        outputs[name] = padded
    if case.module is CLSSelfAttentionPooling:
        outputs["cls"] = _stack([item["cls"] for item in pooled], DIM)
    return outputs


def _stack(vectors: list[Tensor], width: int) -> Tensor:
    return torch.stack(vectors) if vectors else torch.zeros(0, width, dtype=torch.float64)


def _nothing(frames: Tensor, width: int) -> dict[str, Tensor]:
    zero = frames.new_zeros(())
    return {"utterance": zero.expand(width), "weights": zero.expand(0), "frames": frames, "cls": zero.expand(DIM)}


def _pool(case: Case, module: nn.Module, frames: Tensor) -> dict[str, Tensor]:
    if len(frames) == 0:
        return _nothing(frames, module.output_dim)
    name = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=CLS)", "_", case.module.__name__).lower()
    return getattr(reference, name)(module, frames, **case.options)


def assert_close(actual: Any, expected: Any, dtype: torch.dtype | None = None) -> None:
    """Equal within the tolerance of `dtype`, by default that of `actual`; tensors, or dicts of them."""
    if isinstance(actual, dict):
        assert actual.keys() == expected.keys()
        for name in actual:
            assert_close(actual[name], expected[name], dtype)
        return
    tolerance = TOLERANCES[dtype or actual.dtype]
    torch.testing.assert_close(actual, torch.as_tensor(expected, dtype=actual.dtype), **tolerance)


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


def cases_of(module: type[nn.Module]) -> list[Case]:
    return [case for case in EVERYTHING if case.module is module]
