"""The computations behind the modules, as pure functions of tensors."""

from framealign.functional.alignment_objective import alignment_objective
from framealign.functional.attentive import attentive_pooling
from framealign.functional.attentive_statistics import weighted_statistics
from framealign.functional.cls_self_attention import cls_attention
from framealign.functional.emotional_attention import emotional_attention_loss
from framealign.functional.frame_stats import frame_stats
from framealign.functional.frame_utterance_alignment import frame_utterance_alignment_loss
from framealign.functional.packing import pack, unpack
from framealign.kernels.interface import FrameStats
from framealign.layout import masked_mean
from framealign.masking import lengths_to_mask, masked_softmax, zero_padding

__all__ = [
    "FrameStats",
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
]
