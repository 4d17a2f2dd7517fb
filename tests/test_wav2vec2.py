"""`exact_under_padding`: an utterance alone equals the same one in any padded batch, and nothing else changes."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import (
    Data2VecAudioConfig,
    Data2VecAudioModel,
    HubertConfig,
    HubertModel,
    UniSpeechSatConfig,
    UniSpeechSatModel,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForSequenceClassification,
    Wav2Vec2Model,
    WavLMConfig,
    WavLMModel,
)

from cases import assert_close_to_rounding
from framealign import conv_lengths, exact_under_padding, lengths_to_mask
from framealign.wav2vec2 import GroupNormOfRealSteps

SAMPLES = (16_000, 9_000, 5_000)
KINDS = {
    "wav2vec 2.0": (Wav2Vec2Model, Wav2Vec2Config),
    "HuBERT": (HubertModel, HubertConfig),
    "WavLM": (WavLMModel, WavLMConfig),
    "UniSpeech-SAT": (UniSpeechSatModel, UniSpeechSatConfig),
}


def small(config: Callable[..., Any] = Wav2Vec2Config, **values: Any) -> Any:
    return config(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        conv_dim=(16,) * 7,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
        mask_time_prob=0.0,
        layerdrop=0.0,
        attention_dropout=0.0,
        hidden_dropout=0.0,
        activation_dropout=0.0,
        feat_proj_dropout=0.0,
        **values,
    )


def model_of(kind: str = "wav2vec 2.0", **values: Any) -> nn.Module:
    build, config = KINDS[kind]
    model = build(small(config, **values)).eval()
    for name, parameter in model.named_parameters():
        if name.endswith("conv_layers.0.layer_norm.weight"):
            nn.init.normal_(parameter, 1, 0.3)  # as a trained one, so that it takes part
    return model


def utterances() -> list[Tensor]:
    return [torch.randn(samples) for samples in SAMPLES]


def padded(waveforms: list[Tensor], value: float = torch.nan) -> tuple[Tensor, Tensor]:
    batch = nn.utils.rnn.pad_sequence(waveforms, batch_first=True, padding_value=value)
    return batch, lengths_to_mask([len(waveform) for waveform in waveforms], batch.shape[1]).long()


def distance(found: Tensor, expected: Tensor) -> float:
    return ((found - expected).norm() / expected.norm()).item()


def assert_exact(model: nn.Module, bound: float = 1e-5) -> None:
    """Every utterance alone equals itself in a batch whose padding is NaN."""
    waveforms = utterances()
    batch, mask = padded(waveforms)
    with torch.no_grad():
        output = model(batch, attention_mask=mask)
        for row, (waveform, real) in enumerate(zip(waveforms, output.frame_mask, strict=True)):
            alone = model(waveform[None])
            assert alone.frame_mask.all()
            assert distance(output.last_hidden_state[row, real], alone.last_hidden_state[0]) < bound


@pytest.mark.parametrize("kind", KINDS)
def test_an_utterance_alone_equals_itself_in_a_batch(kind: str) -> None:
    model = model_of(kind)
    batch, mask = padded(utterances(), 0.0)
    with torch.no_grad():
        plain = model(batch, attention_mask=mask).last_hidden_state[2, :15]
        alone = model(batch[2:, : SAMPLES[2]]).last_hidden_state[0]
    assert distance(plain, alone) > 0.1  # what is cured
    assert exact_under_padding(model) is model
    assert_exact(model)


@pytest.mark.parametrize("kind", KINDS)
def test_an_unpadded_utterance_is_what_it_was(kind: str) -> None:
    model = model_of(kind)
    waveform = torch.randn(2, 6000)
    before = model(waveform).last_hidden_state
    exact_under_padding(model)
    assert torch.equal(model(waveform).last_hidden_state, before)
    with_mask = model(waveform, attention_mask=torch.ones(2, 6000)[:, :].long()).last_hidden_state
    torch.testing.assert_close(with_mask, before)


def test_models_that_normalise_each_step_get_the_mask_alone() -> None:
    model = exact_under_padding(model_of(feat_extract_norm="layer", do_stable_layer_norm=True, conv_bias=True))
    assert not any(isinstance(part, GroupNormOfRealSteps) for part in model.modules())
    waveforms = utterances()
    batch, mask = padded(waveforms, 0.0)
    output = model(batch, attention_mask=mask)
    for row, waveform in enumerate(waveforms):
        real = output.frame_mask[row]
        assert distance(output.last_hidden_state[row, real], model(waveform[None]).last_hidden_state[0]) < 1e-5


def test_the_mask_is_handed_back_and_counts_a_clip_without_frames_as_none() -> None:
    model = exact_under_padding(model_of())
    mask = lengths_to_mask([16_000, 399], 16_000).long()
    output = model(torch.randn(2, 16_000), mask)  # by position
    assert output.frame_mask.sum(1).tolist() == [49, 0]
    assert output.last_hidden_state.isfinite().all()


def test_the_mask_covers_padding_that_is_nobody_s() -> None:
    """A batch may be padded further than to its longest utterance; and without a mask every frame is real."""
    model, batch = exact_under_padding(model_of()), torch.randn(2, 16_000)
    frame_mask = model(batch, attention_mask=lengths_to_mask([8_000, 400], 16_000).long()).frame_mask
    assert frame_mask.shape == (2, 49)
    assert frame_mask.sum(1).tolist() == [24, 1]
    everything = model(batch).frame_mask
    assert everything.dtype == torch.bool
    assert everything.shape == (2, 49)
    assert everything.all()


def test_waveforms_may_be_given_by_name_and_outputs_be_tuples() -> None:
    model, (batch, mask) = exact_under_padding(model_of()), padded(utterances())
    expected = model(batch, mask).last_hidden_state
    assert expected.isfinite().all()
    found = model(input_values=batch, attention_mask=mask).last_hidden_state
    torch.testing.assert_close(found, expected)
    (gradient,) = torch.autograd.grad(found.sum(), model.feature_extractor.conv_layers[0].conv.weight)
    assert gradient.isfinite().all()  # which NaN in the padding would end
    frames, *_ = model(input_values=batch, attention_mask=mask, return_dict=False)
    torch.testing.assert_close(frames, expected)


def test_of_several_models_those_are_prepared_that_were_not() -> None:
    first, second = exact_under_padding(model_of()), model_of()
    hooks = len(first._forward_pre_hooks)
    exact_under_padding(nn.ModuleList([first, second]))
    assert len(first._forward_pre_hooks) == hooks
    assert_exact(second, 1e-5)


@pytest.mark.parametrize("lengths", [None, [6, 4]], ids=["all real", "padded"])
def test_the_norm_has_the_epsilon_and_the_dtypes_of_the_former(lengths: list[int] | None) -> None:
    norm, steps = nn.GroupNorm(2, 4, eps=0.3), torch.randn(2, 4, 6)
    masked = GroupNormOfRealSteps(norm)
    masked.lengths = None if lengths is None else torch.tensor(lengths)
    torch.testing.assert_close(masked(steps)[0], norm(steps)[0])
    half = steps.bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        assert masked(half).dtype == norm(half).dtype
        torch.testing.assert_close(masked(half)[0], norm(half)[0])
    norm.bfloat16()
    found = masked(half)
    assert found.dtype == torch.bfloat16
    exact = GroupNormOfRealSteps(nn.GroupNorm(2, 4, eps=0.3))  # statistics in float32, rounded once
    exact.lengths = masked.lengths
    torch.testing.assert_close(found, exact(half.float()).bfloat16())


@given(st.integers(1, 3), st.integers(1, 3), st.lists(st.integers(0, 6), min_size=1, max_size=4), st.booleans())
def test_the_norm_is_that_of_the_real_steps_alone(groups: int, width: int, lengths: list[int], affine: bool) -> None:
    norm = nn.GroupNorm(groups, groups * width, affine=affine).double()
    if affine:
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    masked = GroupNormOfRealSteps(norm)
    steps = torch.randn(len(lengths), groups * width, 6, dtype=torch.float64)
    masked.lengths = torch.tensor(lengths)
    found = masked(steps.masked_fill(~lengths_to_mask(lengths, 6)[:, None], torch.nan))
    for row, length in enumerate(lengths):
        assert not found[row, :, length:].any()
        if length * width > 1:  # torch refuses a single value
            torch.testing.assert_close(found[row : row + 1, :, :length], norm(steps[row : row + 1, :, :length]))


def test_weights_their_names_and_their_identity_are_as_before() -> None:
    model = model_of()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    parameters = dict(model.named_parameters())
    exact_under_padding(model)
    exact_under_padding(model)  # a second time does nothing
    assert list(model.state_dict()) == list(before)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter is parameters[name] for name, parameter in model.named_parameters())
    assert sum(len(part._forward_pre_hooks) for part in model.modules()) == 1
    model_of().load_state_dict(model.state_dict())


def gradients(model: nn.Module, batch: Tensor, mask: Tensor | None, real: Tensor) -> list[Tensor]:
    model.zero_grad()
    hidden = model(batch, attention_mask=mask).last_hidden_state
    hidden[:, : real.shape[1]][real].square().sum().backward()
    return [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]


def test_a_cnn_that_is_trained_gets_the_gradients_of_utterances_alone() -> None:
    model = exact_under_padding(model_of()).double()
    waveforms = [waveform.double() for waveform in utterances()]
    batch, mask = padded(waveforms)
    real = lengths_to_mask(conv_lengths(SAMPLES, model.config.conv_kernel, model.config.conv_stride), 49)
    together = gradients(model, batch, mask, real)
    alone = [gradients(model, w[None], None, r[None, : int(r.sum())]) for w, r in zip(waveforms, real, strict=True)]
    expected = [sum(of_each) for of_each in zip(*alone, strict=True)]
    assert len(together) > 30
    for found, wanted in zip(together, expected, strict=True):
        torch.testing.assert_close(found, wanted)


def test_inside_a_classifier() -> None:
    model = Wav2Vec2ForSequenceClassification(small(num_labels=4, classifier_proj_size=8)).eval()
    waveforms = utterances()
    batch, mask = padded(waveforms)
    exact_under_padding(model)
    logits = model(batch, attention_mask=mask).logits
    for row, waveform in enumerate(waveforms):
        assert_close_to_rounding(logits[row], model(waveform[None]).logits[0])


def test_a_copy_is_exact_and_on_its_own() -> None:
    model = exact_under_padding(model_of())
    other = copy.deepcopy(model)
    norms = [one.feature_extractor.conv_layers[0].layer_norm for one in (model, other)]
    assert norms[0] is not norms[1]
    assert_exact(other)
    assert norms[0].lengths is None  # the original has heard nothing of it
    assert_exact(model)


def test_what_is_put_in_pickles() -> None:
    """A whole plain model does not: transformers hangs local functions on it for its weight norm."""
    model = exact_under_padding(model_of())
    ours = [model.feature_extractor, *model._forward_pre_hooks.values(), *model._forward_hooks.values()]
    extractor, before, _ = pickle.loads(pickle.dumps(ours))
    assert before.norm is extractor.conv_layers[0].layer_norm
    batch, _ = padded(utterances(), 0.0)
    for norm in (before.norm, model.feature_extractor.conv_layers[0].layer_norm):
        norm.lengths = conv_lengths(SAMPLES, 10, 5)
    assert torch.equal(extractor(batch), model.feature_extractor(batch))


def test_compiled() -> None:
    model = exact_under_padding(model_of())
    assert_exact(torch.compile(model, backend="aot_eager", dynamic=True))


def test_distributed(tmp_path: Any) -> None:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        model = nn.parallel.DistributedDataParallel(exact_under_padding(model_of()))
        assert_exact(model)
        batch, mask = padded(utterances())
        output = model(batch, attention_mask=mask)
        output.last_hidden_state[output.frame_mask].sum().backward()
    finally:
        dist.destroy_process_group()


def test_autocast_and_half_precision() -> None:
    model = exact_under_padding(model_of())
    with torch.autocast("cpu", torch.bfloat16):
        assert_exact(model, 0.05)


def test_gradient_checkpointing() -> None:
    plain = exact_under_padding(model_of()).train()
    checkpointed = copy.deepcopy(plain)
    checkpointed.gradient_checkpointing_enable()
    batch, mask = padded(utterances(), 0.0)
    real = lengths_to_mask(conv_lengths(SAMPLES, plain.config.conv_kernel, plain.config.conv_stride), 49)
    for found, expected in zip(
        gradients(checkpointed, batch, mask, real), gradients(plain, batch, mask, real), strict=True
    ):
        torch.testing.assert_close(found, expected)
    output = checkpointed(batch, attention_mask=mask)
    checkpointed(batch[:2], attention_mask=mask[:2])
    with pytest.raises(RuntimeError, match="run backward before the next forward pass"):
        output.last_hidden_state.sum().backward()


def test_the_extractor_s_own_mask() -> None:
    model = exact_under_padding(model_of())
    waveforms = [(3 * waveform + 1).numpy() for waveform in utterances()]
    extractor = Wav2Vec2FeatureExtractor()  # as facebook/wav2vec2-base: makes no mask unless it is asked to
    batch = extractor(waveforms, sampling_rate=16_000, padding=True, return_attention_mask=True, return_tensors="pt")
    with torch.no_grad():
        output = model(**batch)
        for row, waveform in enumerate(waveforms):
            alone = model(extractor(waveform, sampling_rate=16_000, return_tensors="pt").input_values)
            found = output.last_hidden_state[row, output.frame_mask[row]]
            assert distance(found, alone.last_hidden_state[0]) < 1e-4


def test_each_refusal_says_what_it_got() -> None:
    with pytest.raises(TypeError, match="`model` must be a module, got str"):
        exact_under_padding("facebook/wav2vec2-base")
    with pytest.raises(ValueError, match=r"`model` must be a wav2vec 2.0 or a relative of it, .* got Linear"):
        exact_under_padding(nn.Linear(2, 2))
    values = small(Data2VecAudioConfig)
    values.conv_pos_kernel_size = 5
    with pytest.raises(ValueError, match="must not be a data2vec model, got Data2VecAudioModel"):
        exact_under_padding(Data2VecAudioModel(values))
