"""Parameters start as they should: from a seed, drawn anew, from the meta device, and as a new head in transformers."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import Wav2Vec2Config, Wav2Vec2Model, Wav2Vec2PreTrainedModel

from cases import DIM, POOLINGS, Case, assert_equal
from framealign import AlignmentObjective, CLSSelfAttentionPooling

# Of a module built from seed 0: a sum of its parameters that knows their order, and what the generator gives next
STARTS = {
    "MeanPooling()": (0.000000, 0.496257),
    "MaxPooling()": (0.000000, 0.496257),
    "StatisticsPooling()": (0.000000, 0.496257),
    "AttentivePooling()": (-5.895717, 0.126498),
    "AttentivePooling(hidden_dim=None)": (-0.035536, 0.455628),
    "AttentiveStatisticsPooling()": (-5.895717, 0.126498),
    "AttentiveStatisticsPooling(hidden_dim=None)": (-0.035536, 0.455628),
    "SelfAttentionPooling()": (28.654550, 0.036852),
    "SelfAttentionPooling(num_heads=2,depth=2,norm_first=True,hidden_dim=None)": (62.533044, 0.121893),
    "SelfAttentionPooling(feedforward_dim=0,hidden_dim=5)": (14.781628, 0.999145),
    "CLSSelfAttentionPooling()": (28.882088, 0.018330),
    "CLSSelfAttentionPooling(similarity=cosine)": (28.882088, 0.018330),
    "CLSSelfAttentionPooling(similarity=cosine,temperature=0.5,aggregate=cls)": (28.882088, 0.018330),
    "CLSSelfAttentionPooling(aggregate=sum,num_heads=1,depth=2)": (62.754191, 0.305223),
    "CLSSelfAttentionPooling(norm_first=True,feedforward_dim=5)": (25.460484, 0.888191),
    "CLSSelfAttentionPooling(feedforward_dim=0)": (13.911278, 0.081027),
    "CLSSelfAttentionPooling(feedforward_dim=0,norm_first=True,depth=2)": (27.838786, 0.755436),
}
each_start = pytest.mark.parametrize("case", POOLINGS, ids=str)
each_learned = pytest.mark.parametrize(
    "case", [case for case in POOLINGS if list(case.module(**case.options).parameters())], ids=str
)


@pytest.fixture(autouse=True)
def _uninitialised_memory_is_nan() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def new(case: Case) -> nn.Module:
    torch.manual_seed(0)
    return case.module(**case.options)


def reset(module: nn.Module) -> None:
    """From the same seed each time."""
    torch.manual_seed(0)
    if hasattr(module, "reset_parameters"):
        module.reset_parameters()


@each_start
def test_a_seed_gives_what_it_gave_when_the_tables_were_made(case: Case) -> None:
    module = new(case)
    following = torch.rand(()).item()
    total = 0.0
    for values in module.parameters():
        order = torch.linspace(1, 2, values.numel(), dtype=torch.float64)
        total += (values.double().flatten() @ order).item()
    assert (total, following) == pytest.approx(STARTS[str(case)], abs=1e-5)


@each_learned
def test_reset_draws_what_a_new_module_does(case: Case) -> None:
    module = case.build(torch.float32)  # whose parameters have moved
    reset(module)
    assert_equal(module.state_dict(), new(case).state_dict())


@each_learned
def test_from_the_meta_device(case: Case) -> None:
    with torch.device("meta"):
        module = new(case)
    module.to_empty(device="cpu")
    assert all(values.isnan().all() for values in module.parameters())
    module.apply(reset)  # children first, so that the last word is the pooling's
    assert_equal(module.state_dict(), new(case).state_dict())


@each_learned
def test_reset_from_the_outside_in_leaves_nothing_out(case: Case) -> None:
    """As the loop over `modules()`, which gives the input of attention its layer's own start at last."""
    with torch.device("meta"):
        module = new(case)
    module.to_empty(device="cpu")
    for part in module.modules():
        reset(part)
    expected = new(case).state_dict()
    for name, values in module.state_dict().items():
        assert values.isfinite().all()
        if values.ndim == 1 and "bias" not in name:  # norms and the CLS
            assert_equal(values, expected[name])


def test_class_weights_from_the_meta_device() -> None:
    given = torch.tensor([0.1, 1.0, 3.0], dtype=torch.float64)
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(DIM, 3), AlignmentObjective(class_weights=given))
    model.to_empty(device="cpu")
    assert model[1].class_weights.isnan().all()
    model.apply(reset)
    assert_equal(model[1].class_weights, given)


# transformers 5 builds on the meta device ------------------------------------------------------------------------


class WithoutTheLine(Wav2Vec2PreTrainedModel):
    def __init__(self, config: Wav2Vec2Config) -> None:
        super().__init__(config)
        self.wav2vec2 = Wav2Vec2Model(config)
        self.pooling = CLSSelfAttentionPooling(config.hidden_size)
        self.objective = AlignmentObjective(class_weights=torch.tensor([1.0, 2.0], device="cpu"))
        self.post_init()


class WithTheLine(WithoutTheLine):
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if module in (self.pooling, self.objective):
            module.reset_parameters()


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A backbone without a head."""
    config = Wav2Vec2Config(
        hidden_size=DIM,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=DIM,
        conv_dim=(4, 4),
        conv_stride=(5, 2),
        conv_kernel=(10, 3),
        num_feat_extract_layers=2,
        num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2,
    )
    Wav2Vec2Model(config).save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def test_without_the_line_a_new_head_has_no_start(base: Path) -> None:
    """Why the page on it exists; where this fails, transformers has learned to, and the line can go."""
    model = WithoutTheLine.from_pretrained(base)
    assert model.pooling.cls.isnan().all()
    assert model.objective.class_weights.isnan().all()


def test_a_new_head_on_a_pretrained_backbone(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WithTheLine, "_init_weights", _from_a_seed(WithTheLine._init_weights))
    model = WithTheLine.from_pretrained(base)
    expected = new(Case(CLSSelfAttentionPooling, {"dim": DIM}))
    assert_equal(model.pooling.state_dict(), expected.state_dict())
    assert_equal(model.objective.class_weights, torch.tensor([1.0, 2.0]))
    assert_equal(model.wav2vec2.state_dict(), Wav2Vec2Model.from_pretrained(base).state_dict())


def _from_a_seed(initialise: Callable[..., None]) -> Callable[..., None]:
    def seeded(self: nn.Module, module: nn.Module) -> None:
        torch.manual_seed(0)
        initialise(self, module)

    return seeded


def test_a_trained_head_is_loaded_and_not_drawn_anew(base: Path, tmp_path: Path) -> None:
    model = WithTheLine.from_pretrained(base)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    model.save_pretrained(tmp_path / "trained")
    again = WithTheLine.from_pretrained(tmp_path / "trained")
    assert_equal(again.state_dict(), model.state_dict())
    assert_equal(again.objective.class_weights, model.objective.class_weights)
