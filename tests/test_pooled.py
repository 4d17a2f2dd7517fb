"""What every pooling shares: what it takes, what it refuses, and the width it announces."""

import re

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cases import DIM, MASKS, POOLINGS, Case, assert_close, assert_equal, make_inputs, one_of_each, oracle, run
from framealign import AttentiveStatisticsPooling, MaxPooling, MeanPooling, Pooled, StatisticsPooling
from framealign.functional import pack

each_pooling = pytest.mark.parametrize("case", POOLINGS, ids=str)


@each_pooling
def test_returns_a_pooled(case: Case) -> None:
    module, inputs = case.build(), make_inputs(case, MASKS["full"])
    pooled = module(inputs["frames"])
    assert isinstance(pooled, Pooled)
    assert pooled.utterance.shape == (3, module.output_dim)
    assert_close(pooled.weights.sum(dim=1), torch.ones(3))
    assert (pooled.cls is not None) == ("cls" in oracle(case, module, inputs, MASKS["full"]))


@each_pooling
def test_strided_inputs_give_what_contiguous_ones_give(case: Case) -> None:
    module, mask = case.build(torch.float32), torch.rand(3, 6) > 0.3
    frames = torch.randn(3, 6, DIM)
    plain = run(module, {"frames": frames}, mask)
    strided = {
        "transposed": (frames.transpose(0, 1).contiguous().transpose(0, 1), mask.T.contiguous().T),
        "sliced": (torch.randn(3, 6, 2 * DIM)[..., ::2].copy_(frames), torch.stack([mask, ~mask], dim=2)[..., 0]),
    }
    for frames_view, mask_view in strided.values():
        assert not frames_view.is_contiguous()
        assert_close(run(module, {"frames": frames_view}, mask_view), plain)
    expanded = run(module, {"frames": frames[:1].expand(3, -1, -1)}, mask[:1].expand(3, -1))
    assert_close(expanded, run(module, {"frames": frames[:1].repeat(3, 1, 1)}, mask[:1].repeat(3, 1)))


@each_pooling
@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (4, 1)], ids=str)
def test_utterances_of_one_frame_equal_each_alone(case: Case, shape: tuple[int, int]) -> None:
    module, frames = case.build(torch.float32), torch.randn(*shape, DIM)
    outputs = run(module, {"frames": frames}, None)
    for i in range(shape[0]):
        alone = run(module, {"frames": frames[i : i + 1]}, None)
        assert_close({name: value[i : i + 1] for name, value in outputs.items()}, alone)
    if shape[1] == 1:
        assert_equal(outputs["weights"], torch.ones(shape))


@each_pooling
def test_frames_that_are_hardly_padded_are_zero_on_padding(case: Case) -> None:
    """So few of them that leaving the padding out, as is done elsewhere, would not pay."""
    mask = torch.ones(4, 20, dtype=torch.bool)
    mask[0, -1] = False
    module, inputs = case.build(), make_inputs(case, mask)
    assert not module(inputs["frames"], mask).frames[~mask].any()
    assert_close(run(module, inputs, mask), oracle(case, module, inputs, mask))


@pytest.mark.parametrize("case", one_of_each(POOLINGS), ids=str)
def test_twenty_thousand_frames_pool_as_the_real_ones_alone(case: Case) -> None:
    module, mask = case.build(torch.float32), torch.zeros(1, 20_000, dtype=torch.bool)
    mask[:, ::400] = True  # few of them real, so that the attention of the reference below is small
    frames = torch.randn(1, 20_000, DIM)
    long, short = run(module, {"frames": frames}, mask), run(module, {"frames": frames[:, ::400]}, None)
    assert_close(long["utterance"], short["utterance"])
    assert_close(long["weights"][:, ::400], short["weights"])


@each_pooling
@pytest.mark.parametrize("mask", [MASKS["an empty utterance"], MASKS["no time"]], ids=["frames", "no time"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64], ids=str)
def test_vectors_have_the_dtype_of_the_frames_and_weights_float32_at_least(
    case: Case, dtype: torch.dtype, mask: Tensor
) -> None:
    module, frames = case.build(dtype), torch.randn(*mask.shape, DIM, dtype=dtype)
    packed, cu_seqlens = pack(frames, mask)
    for arguments in ({"frames": frames, "mask": mask}, {"frames": packed, "cu_seqlens": cu_seqlens}):
        pooled, embedded = module(**arguments), module.embed(**arguments)
        assert pooled.weights.dtype == torch.promote_types(dtype, torch.float32)
        vectors = (embedded, *pooled._replace(weights=None))
        assert {value.dtype for value in vectors if value is not None} == {dtype}
        assert_close(embedded, pooled.utterance)


@each_pooling
def test_a_little_padding_is_read_no_more_than_much(case: Case) -> None:
    """Of which the real frames are not copied out first."""
    module, mask = case.build(), torch.ones(4, 5, dtype=torch.bool)
    mask[1, 4] = False
    frames = torch.randn(*mask.shape, DIM, dtype=torch.float64)
    clean, junk = (frames.masked_fill(~mask[..., None], value) for value in (0.0, torch.nan))
    assert_equal(module(junk, mask), module(clean, mask))
    assert_equal(module.embed(junk, mask), module.embed(clean, mask))


@each_pooling
@pytest.mark.parametrize("layout", ["padded", "packed"])
def test_without_gradients_and_through_a_hook_embed_gives_the_same(case: Case, layout: str) -> None:
    """The first takes a shorter way; for the second the module is called as a whole."""
    module, mask = case.build(), MASKS["an empty utterance"]
    frames = torch.randn(*mask.shape, DIM, dtype=torch.float64)
    packed, cu_seqlens = pack(frames, mask)
    arguments = {"frames": frames, "mask": mask} if layout == "padded" else {"frames": packed, "cu_seqlens": cu_seqlens}
    expected = module(**arguments)
    with torch.no_grad():
        assert_equal(module(**arguments).utterance, expected.utterance)
        assert_close(module.embed(**arguments), expected.utterance)
    called = []
    module.register_forward_hook(lambda *_: called.append(True))
    assert_close(module.embed(**arguments), expected.utterance)
    assert len(called) == (case.module not in (MaxPooling, MeanPooling, StatisticsPooling))


@each_pooling
def test_autocast_keeps_the_dtype_of_the_frames(case: Case) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        pooled = case.build(torch.float32)(torch.randn(2, 3, DIM).bfloat16())
    vectors = pooled.utterance, pooled.frames, pooled.cls
    assert {value.dtype for value in vectors if value is not None} == {torch.bfloat16}


@pytest.mark.parametrize("pooling", [MaxPooling, StatisticsPooling, AttentiveStatisticsPooling])
def test_a_pooling_without_a_kernel_says_why_triton_cannot_run_it(pooling: type[nn.Module]) -> None:
    why = (
        "a maximum has no kernel"
        if pooling is MaxPooling
        else "the deviation around a mean takes a second read, and has"
    )
    with pytest.raises(RuntimeError, match=rf'`backend="triton"` cannot run: {why}'):
        pooling(DIM, backend="triton")


@each_pooling
def test_state_survives_a_round_trip(case: Case) -> None:
    module, twin = case.build(), case.module(**case.options).double()
    twin.load_state_dict(module.state_dict())
    frames = {"frames": torch.randn(2, 3, DIM, dtype=torch.float64)}
    assert_equal(run(twin, frames, None), run(module, frames, None))


@each_pooling
def test_meta_tensors_give_shapes(case: Case) -> None:
    module = case.module(**case.options).to("meta")
    assert module(torch.empty(2, 3, DIM, device="meta")).utterance.shape == (2, module.output_dim)


FRAMES = torch.randn(2, 3, DIM)
REFUSED = {
    "a list": (([[1.0]], None), TypeError, "`frames` must be a tensor of shape (batch, time, dim), got list."),
    "an array": (
        (np.ones((2, 3, DIM)), None),
        TypeError,
        "`frames` must be a tensor of shape (batch, time, dim), got nd",
    ),
    "two axes": ((FRAMES[0], None), ValueError, f"`frames` must have shape (batch, time, dim), got (3, {DIM})."),
    "four axes": ((FRAMES[None], None), ValueError, "`frames` must have shape (batch, time, dim), got (1, 2, 3"),
    "another width": ((FRAMES[..., :5], None), ValueError, f"`frames` must have dim {DIM}, the `dim` of this module"),
    "integers": ((FRAMES.long(), None), TypeError, "`frames` must be floating point, got torch.int64; use `frames.fl"),
    "complex": ((FRAMES.cfloat(), None), TypeError, "`frames` must be floating point, got torch.complex64"),
    "a float mask": (
        (FRAMES, torch.ones(2, 3)),
        TypeError,
        "`mask` must be bool, True at real frames, got torch.float",
    ),
    "an integer mask": (
        (FRAMES, torch.ones(2, 3, dtype=torch.int64)),
        TypeError,
        "got torch.int64; use `attention_mask.bool()` or `lengths_to_mask(...)`.",
    ),
    "a mask as a list": (
        (FRAMES, [[True] * 3] * 2),
        TypeError,
        "`mask` must be a bool tensor of shape (batch, time) or",
    ),
    "a mask as an array": ((FRAMES, np.ones((2, 3), bool)), TypeError, "(batch, time) or None, got ndarray."),
    "a longer mask": (
        (FRAMES, torch.ones(2, 4, dtype=torch.bool)),
        ValueError,
        "`mask` must have shape (batch, time) = (2, 3) to match `frames`, got (2, 4).",
    ),
    "a mask of another batch": (
        (FRAMES, torch.ones(3, 3, dtype=torch.bool)),
        ValueError,
        "= (2, 3) to match `frames`, g",
    ),
    "a mask with an axis more": ((FRAMES, torch.ones(2, 3, 1, dtype=torch.bool)), ValueError, "got (2, 3, 1)."),
    "a mask elsewhere": (
        (FRAMES, torch.ones(2, 3, dtype=torch.bool, device="meta")),
        ValueError,
        "`mask` must be on the device of `frames`, cpu, got meta; use `mask.to(frames.device)`.",
    ),
}


@each_pooling
@pytest.mark.parametrize("refused", REFUSED.values(), ids=REFUSED)
def test_each_refusal_says_what_was_expected_and_what_came(
    case: Case, refused: tuple[tuple[object, object], type[Exception], str]
) -> None:
    arguments, error, message = refused
    with pytest.raises(error, match=re.escape(message)):
        case.module(**case.options)(*arguments)
    with pytest.raises(error, match=re.escape(message)):
        case.module(**case.options).embed(*arguments)


@pytest.mark.parametrize("pooling", [MeanPooling, MaxPooling, StatisticsPooling])
def test_a_pooling_without_parameters_knows_its_width_if_told(pooling: type[nn.Module]) -> None:
    assert pooling(6).output_dim == (12 if pooling is StatisticsPooling else 6)
    assert pooling()(torch.ones(1, 2, 7)).frames.shape == (1, 2, 7)
    with pytest.raises(RuntimeError, match=rf"`output_dim` of {pooling.__name__}\(\) is not known: .* build it as"):
        _ = pooling().output_dim
    with pytest.raises(TypeError, match=r"`dim` must be an integer, got str"):
        pooling("6")
    with pytest.raises(ValueError, match=r"`dim` must be at least 1, got 0"):
        pooling(0)
