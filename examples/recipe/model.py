"""A speech encoder, a pooling and a linear classifier."""

from torch import Tensor, nn

from framealign import Pooled
from recipe.backbones import Backbone


class EmotionModel(nn.Module):
    def __init__(self, backbone: Backbone, pooling: nn.Module, num_classes: int) -> None:
        super().__init__()
        self.backbone, self.pooling = backbone, pooling
        self.classifier = nn.Linear(pooling.output_dim, num_classes)

    def forward(self, features: Tensor, mask: Tensor) -> tuple[Pooled, Tensor]:
        """Padded features of the frozen front end and their mask, to the pooled frames and the frames' mask."""
        frames, mask = self.backbone.encode(features, mask)
        return self.pooling(frames, mask), mask
