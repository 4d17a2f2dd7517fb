"""A speech encoder, a pooling and a linear classifier; and the same with its objective, as a step trains it."""

from collections.abc import Mapping

from torch import Tensor, nn

from framealign import AlignmentObjective, Objective, Pooled
from recipe.features.backbone import Backbone


class EmotionModel(nn.Module):
    def __init__(self, backbone: Backbone, pooling: nn.Module, num_classes: int) -> None:
        super().__init__()
        self.backbone, self.pooling = backbone, pooling
        self.classifier = nn.Linear(pooling.output_dim, num_classes)

    def forward(self, features: Tensor, mask: Tensor) -> tuple[Pooled, Tensor]:
        """Padded features of the frozen front end and their mask, to the pooled frames and the frames' mask."""
        frames, mask = self.backbone.encode(features, mask)
        return self.pooling(frames, mask), mask

    def learned_state(self) -> dict[str, Tensor]:
        """The state without the frozen front end: what a checkpoint must hold."""
        frozen = {name for name, parameter in self.named_parameters() if not parameter.requires_grad}
        return {name: value for name, value in self.state_dict().items() if name not in frozen}

    def load_learned_state(self, state: Mapping[str, Tensor]) -> None:
        if state.keys() != self.learned_state().keys():
            raise ValueError("the state is of another model")
        self.load_state_dict(state, strict=False)


class Trainee(nn.Module):
    """All that makes a loss, in one module: distributed wrappers see every parameter's use inside its forward."""

    def __init__(self, model: EmotionModel, objective: AlignmentObjective) -> None:
        super().__init__()
        self.model, self.objective = model, objective

    def forward(self, features: Tensor, mask: Tensor, labels: Tensor) -> Objective:
        pooled, frame_mask = self.model(features, mask)
        return self.objective(pooled, labels, self.model.classifier, frame_mask)
