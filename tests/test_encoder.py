"""What the two poolings with a Transformer encoder share."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cases import MASKS, assert_close, assert_equal
from framealign import CLSSelfAttentionPooling, SelfAttentionPooling
from framealign.layout import Packed
from framealign.pooling import unpadded

pytestmark = pytest.mark.parametrize("pooling", [SelfAttentionPooling, CLSSelfAttentionPooling])


def test_the_feedforward_half_is_four_times_as_wide_or_left_out(pooling: type[nn.Module]) -> None:
    module = pooling(8, depth=3)
    assert module.output_dim == 8
    assert [layer.feedforward[0].out_features for layer in module.encoder.layers] == [32, 32, 32]
    assert pooling(8, feedforward_dim=0).encoder.layers[0].feedforward is None


def test_attention_starts_as_torch_s_does(pooling: type[nn.Module]) -> None:
    attention = pooling(64).encoder.layers[0].attention
    theirs = nn.MultiheadAttention(64, 4)
    assert_close(attention.project_in.weight.std(), theirs.in_proj_weight.std(), torch.bfloat16)
    assert not attention.project_in.bias.any()
    assert not attention.project_out.bias.any()


def test_dropout_draws_in_training_only(pooling: type[nn.Module]) -> None:
    module, frames = pooling(8, dropout=0.5), torch.randn(2, 5, 8)
    assert not torch.equal(module(frames).frames, module(frames).frames)
    module.eval()
    calm = pooling(8)
    calm.load_state_dict(module.state_dict())
    assert_equal(module(frames).frames, calm(frames).frames)


def test_dropout_is_of_attention_hidden_units_and_outputs(
    pooling: type[nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    attend, shares, shapes = F.scaled_dot_product_attention, [], []

    def attend_and_tell(*arguments: Tensor, **options: object) -> Tensor:
        shares.append(options["dropout_p"])
        return attend(*arguments, **options)

    monkeypatch.setattr(F, "scaled_dot_product_attention", attend_and_tell)
    module = pooling(8, dropout=0.5)
    for part in module.modules():
        if isinstance(part, nn.Dropout):
            assert part.p == 0.5
            part.register_forward_hook(lambda _, inputs, __: shapes.append(inputs[0].shape[-1]))
    module(torch.randn(2, 5, 8))
    assert shapes == [8, 32, 8]
    module.eval()(torch.randn(2, 5, 8))
    assert shares == [0.5, 0.0]


@pytest.mark.parametrize("feedforward_dim", [None, 0])
@pytest.mark.parametrize("norm_first", [False, True])
def test_training_with_dropout_never_reads_padding(
    pooling: type[nn.Module], norm_first: bool, feedforward_dim: int | None
) -> None:
    module = pooling(8, depth=2, dropout=0.5, norm_first=norm_first, feedforward_dim=feedforward_dim)
    mask = MASKS["an empty utterance"]
    frames = torch.randn(*mask.shape, 8)
    clean, junk = (_step(module, frames.masked_fill(~mask[..., None], value), mask) for value in (0.0, torch.nan))
    assert_equal(junk, clean)
    assert all(value.isfinite().all() for value in junk)


def _step(module: nn.Module, frames: Tensor, mask: Tensor) -> list[Tensor]:
    torch.manual_seed(0)
    pooled = module(frames.requires_grad_(), mask)
    loss = pooled.utterance.square().sum() + pooled.frames.sin().sum()
    return [pooled.utterance, *torch.autograd.grad(loss, [frames, *module.parameters()])]


def test_no_query_is_left_with_nothing_to_attend_to(pooling: type[nn.Module], monkeypatch: pytest.MonkeyPatch) -> None:
    """A softmax over nothing is zero in the CPU's kernel; another kernel may make it nan."""
    attend, masks = F.scaled_dot_product_attention, []

    def spy(*args: Tensor, attn_mask: Tensor, **options: float) -> Tensor:
        masks.append(attn_mask)
        return attend(*args, attn_mask=attn_mask, **options)

    monkeypatch.setattr(F, "scaled_dot_product_attention", spy)
    monkeypatch.setattr(unpadded, "_WORTH_PACKING", 0.0)
    mask = MASKS["an empty utterance"]
    pooling(8)(torch.randn(*mask.shape, 8), mask)
    assert masks[0].any(dim=-1).all()


def test_packed_frames_on_a_device_attend_to_their_own_utterance_alone(
    pooling: type[nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where lengths must not be waited for, all frames attend at once, under a mask."""
    module, frames, cu_seqlens = pooling(8, depth=2), torch.randn(9, 8), torch.tensor([0, 4, 4, 9])
    expected = module(frames, cu_seqlens=cu_seqlens)
    asked: list[Packed] = []
    monkeypatch.setattr(Packed, "lengths_on_host", lambda layout: asked.append(layout))  # gives None
    found = module(frames, cu_seqlens=cu_seqlens)
    assert len(asked) == 2
    assert_close(found.frames, expected.frames)
    assert_close(found.utterance, expected.utterance)


def test_each_refusal_names_the_argument_and_what_it_got(pooling: type[nn.Module]) -> None:
    with pytest.raises(ValueError, match=r"`dim` must be at least 1, got 0"):
        pooling(0)
    with pytest.raises(ValueError, match=r"`dim` must be divisible by `num_heads`, got 6 and 4"):
        pooling(6)
    with pytest.raises(ValueError, match=r"`depth` must be at least 1, got 0"):
        pooling(8, depth=0)
    with pytest.raises(TypeError, match=r"`num_heads` must be an integer, got float"):
        pooling(8, num_heads=2.0)
    with pytest.raises(ValueError, match=r"`feedforward_dim` must be at least 0, got -1"):
        pooling(8, feedforward_dim=-1)
    with pytest.raises(ValueError, match=r"`dropout` must be a finite number in \[0, 1\], got 1.5"):
        pooling(8, dropout=1.5)
    with pytest.raises(TypeError, match=r"`dropout` must be a number, got bool"):
        pooling(8, dropout=True)
