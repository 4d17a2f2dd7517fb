"""Poolings and losses for speech emotion recognition that make frames and utterance agree."""

from framealign import diagnostics, functional
from framealign.lengths import attention_mask_lengths, conv_lengths, relative_lengths
from framealign.losses import AlignmentObjective, EmotionalAttentionLoss, FrameUtteranceAlignmentLoss, Objective
from framealign.masking import lengths_to_mask
from framealign.pooling import (
    AttentivePooling,
    AttentiveStatisticsPooling,
    CLSSelfAttentionPooling,
    MaxPooling,
    MeanPooling,
    Pooled,
    SelfAttentionPooling,
    StatisticsPooling,
)
from framealign.wav2vec2 import exact_under_padding

__version__ = "1.0.0rc1"

__all__ = [
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
]
