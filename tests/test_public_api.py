"""What `import framealign` gives, what it costs, and that names, signatures and docstrings are as published."""

import doctest
import inspect
import subprocess
import sys
from collections.abc import Callable

import pytest

import framealign

NAMES = {
    "framealign": [
        "AlignmentObjective",
        "AttentivePooling",
        "AttentiveStatisticsPooling",
        "CLSSelfAttentionPooling",
        "EmotionalAttentionLoss",
        "FrameUtteranceAlignmentLoss",
        "MaxPooling",
        "MeanPooling",
        "Objective",
        "Pooled",
        "SelfAttentionPooling",
        "StatisticsPooling",
        "attention_mask_lengths",
        "conv_lengths",
        "diagnostics",
        "exact_under_padding",
        "functional",
        "lengths_to_mask",
        "relative_lengths",
    ],
    "framealign.functional": [
        "alignment_objective",
        "attentive_pooling",
        "cls_attention",
        "emotional_attention_loss",
        "frame_stats",
        "frame_utterance_alignment_loss",
        "lengths_to_mask",
        "masked_mean",
        "masked_softmax",
        "pack",
        "unpack",
        "weighted_statistics",
        "zero_padding",
    ],
}

SIGNATURES = {
    "MeanPooling": "(dim=None, *, backend='auto')",
    "MaxPooling": "(dim=None, *, backend='auto')",
    "StatisticsPooling": "(dim=None, *, backend='auto')",
    "AttentivePooling": "(dim, hidden_dim=128, *, backend='auto')",
    "AttentiveStatisticsPooling": "(dim, hidden_dim=128, *, backend='auto')",
    "SelfAttentionPooling": (
        "(dim, num_heads=4, depth=1, dropout=0.0, *, norm_first=False, feedforward_dim=None, hidden_dim=128, "
        "backend='auto')"
    ),
    "CLSSelfAttentionPooling": (
        "(dim, num_heads=4, depth=1, dropout=0.0, *, similarity='dot', temperature=0.1, aggregate='frames', "
        "norm_first=False, feedforward_dim=None, backend='auto')"
    ),
    "EmotionalAttentionLoss": "(margin=0.8, *, beta=1.0, negative_margin=None, reduction='mean', backend='auto')",
    "FrameUtteranceAlignmentLoss": "(*, target='utterance', detach=None, reduction='mean', backend='auto')",
    "AlignmentObjective": (
        "(*, margin=0.8, beta=1.0, negative_margin=None, eal_weight=0.05, fual_weight=0.05, target='utterance', "
        "detach=None, label_smoothing=0.0, class_weights=None, backend='auto')"
    ),
    "EmotionalAttentionLoss.forward": "(self, frames, anchor, mask=None, labels=None, *, cu_seqlens=None)",
    "FrameUtteranceAlignmentLoss.forward": (
        "(self, frame_logits, utterance_logits, weights=None, mask=None, *, cu_seqlens=None)"
    ),
    "AlignmentObjective.forward": "(self, pooled, labels, classifier, mask=None, *, cu_seqlens=None)",
    **{
        f"{name}.forward": "(self, frames, mask=None, *, cu_seqlens=None)"
        for name in NAMES["framealign"]
        if name.endswith("Pooling")
    },
    **{
        f"{name}.embed": "(self, frames, mask=None, *, cu_seqlens=None)"
        for name in NAMES["framealign"]
        if name.endswith("Pooling")
    },
    **{
        f"{name}.reset_parameters": "(self)"
        for name in (
            "AlignmentObjective",
            "AttentivePooling",
            "AttentiveStatisticsPooling",
            "CLSSelfAttentionPooling",
            "SelfAttentionPooling",
        )
    },
    "lengths_to_mask": "(lengths, max_length=None)",
    "conv_lengths": "(lengths, kernel, stride, padding=0)",
    "attention_mask_lengths": "(attention_mask)",
    "relative_lengths": "(lengths, longest)",
    "exact_under_padding": "(model)",
    "functional.emotional_attention_loss": (
        "(frames, anchor, mask=None, labels=None, *, margin=0.8, beta=1.0, negative_margin=None, reduction='mean', "
        "cu_seqlens=None, backend='auto')"
    ),
    "functional.frame_utterance_alignment_loss": (
        "(frame_logits, utterance_logits, weights=None, mask=None, *, target='utterance', detach=None, "
        "reduction='mean', cu_seqlens=None, backend='auto')"
    ),
    "functional.attentive_pooling": "(frames, logits, mask=None, *, cu_seqlens=None, backend='auto')",
    "functional.frame_stats": (
        "(frames, columns=None, mask=None, *, logits=None, attend=False, norms=False, cu_seqlens=None, backend='auto')"
    ),
}

DIAGNOSTICS = [
    "anchor_cosine",
    "attention_entropy",
    "diagnose",
    "effective_frames",
    "frame_agreement",
    "frame_variance",
]

# Modules have no example, and a NamedTuple is shown by what returns it
WITHOUT_EXAMPLE = {"diagnostics", "functional", "Objective", "Pooled"}
PUBLIC = [
    *(getattr(framealign, name) for name in NAMES["framealign"] if name not in WITHOUT_EXAMPLE),
    *(getattr(framealign.functional, name) for name in NAMES["framealign.functional"]),
    *(getattr(framealign.diagnostics, name) for name in DIAGNOSTICS),
]


@pytest.mark.parametrize("module", NAMES)
def test_all_lists_the_published_names(module: str) -> None:
    assert sorted(sys.modules[module].__all__) == sorted(NAMES[module])
    for name in NAMES[module]:
        assert hasattr(sys.modules[module], name)


def test_the_named_tuples_have_the_published_fields() -> None:
    assert framealign.Pooled._fields == ("utterance", "weights", "frames", "cls")
    assert framealign.Objective._fields == ("loss", "cross_entropy", "eal", "fual", "logits")


@pytest.mark.parametrize("name", SIGNATURES)
def test_the_signature_is_the_published_one(name: str) -> None:
    value = framealign
    for part in name.split("."):
        value = getattr(value, part)
    signature = inspect.signature(value)
    bare = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in signature.parameters.values()]
    assert str(inspect.Signature(bare)) == SIGNATURES[name]


@pytest.mark.parametrize("thing", PUBLIC, ids=lambda thing: thing.__name__)
def test_docstrings_have_an_example(thing: Callable[..., object]) -> None:
    assert "Example:" in thing.__doc__
    assert doctest.DocTestParser().get_examples(thing.__doc__)


def test_the_version_has_three_parts() -> None:
    assert framealign.__version__.count(".") == 2


def test_importing_brings_in_torch_and_einops_alone() -> None:
    """In a fresh interpreter; how long it took is printed, for `pytest -s`, and never asserted."""
    script = """
import sys, time
import torch
before, start = set(sys.modules), time.perf_counter()
import framealign
took = time.perf_counter() - start
print(sorted({name.partition(".")[0] for name in set(sys.modules) - before}), file=sys.stderr)
print(f"import framealign: {took:.3f} s over import torch")
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    print(result.stdout)
    new = set(eval(result.stderr.strip().splitlines()[-1])) - set(sys.stdlib_module_names)
    assert new <= {"framealign", "einops", "torch"}  # and so not triton
