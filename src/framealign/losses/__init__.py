"""Losses that make frames and utterance agree."""

from framealign.functional.alignment_objective import Objective
from framealign.losses.emotional_attention import EmotionalAttentionLoss
from framealign.losses.frame_utterance_alignment import FrameUtteranceAlignmentLoss
from framealign.losses.objective import AlignmentObjective

__all__ = ["AlignmentObjective", "EmotionalAttentionLoss", "FrameUtteranceAlignmentLoss", "Objective"]
