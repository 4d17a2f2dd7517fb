"""Poolings: from the frames of an utterance to one vector."""

from framealign.pooling.attentive import AttentivePooling
from framealign.pooling.attentive_statistics import AttentiveStatisticsPooling
from framealign.pooling.cls_self_attention import CLSSelfAttentionPooling
from framealign.pooling.max import MaxPooling
from framealign.pooling.mean import MeanPooling
from framealign.pooling.pooled import Pooled
from framealign.pooling.self_attention import SelfAttentionPooling
from framealign.pooling.statistics import StatisticsPooling

__all__ = [
    "AttentivePooling",
    "AttentiveStatisticsPooling",
    "CLSSelfAttentionPooling",
    "MaxPooling",
    "MeanPooling",
    "Pooled",
    "SelfAttentionPooling",
    "StatisticsPooling",
]
