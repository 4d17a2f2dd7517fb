"""Numbers of frames are what convolutions give, and what other frameworks say of the same batch."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import (
    HubertConfig,
    HubertModel,
    Wav2Vec2Config,
    Wav2Vec2Model,
    WhisperConfig,
    WhisperFeatureExtractor,
)
from transformers.models.whisper.modeling_whisper import WhisperEncoder

import framealign
from cases import assert_equal
from framealign import attention_mask_lengths, conv_lengths, lengths_to_mask, relative_lengths

WAV2VEC2 = (10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2)
WHISPER = (3, 3), (1, 2), 1

layer = st.tuples(st.integers(1, 6), st.integers(1, 4), st.integers(0, 2))


class TestConvLengths:
    @given(st.lists(layer, min_size=1, max_size=3), st.lists(st.integers(0, 60), min_size=1, max_size=4))
    def test_are_the_lengths_of_the_convolutions_own_outputs(
        self, stack: list[tuple[int, int, int]], lengths: list[int]
    ) -> None:
        def outputs(length: int) -> int:
            steps = torch.zeros(1, 1, length)
            for kernel, stride, padding in stack:
                if steps.shape[2] == 0 or steps.shape[2] + 2 * padding < kernel:
                    return 0  # where torch refuses
                steps = nn.Conv1d(1, 1, kernel, stride, padding)(steps)
            return steps.shape[2]

        expected = [outputs(length) for length in lengths]
        assert conv_lengths(lengths, *zip(*stack, strict=True)).tolist() == expected

    @pytest.mark.parametrize(("kind", "config"), [(Wav2Vec2Model, Wav2Vec2Config), (HubertModel, HubertConfig)])
    def test_equal_transformers_own(self, kind: type, config: type) -> None:
        small = config(hidden_size=16, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
        samples = torch.arange(400, 5000)
        expected = kind(small)._get_feat_extract_output_lengths(samples)
        assert_equal(conv_lengths(samples, small.conv_kernel, small.conv_stride), expected)
        assert_equal(conv_lengths(samples, *WAV2VEC2), expected)

    def test_of_whisper_are_the_states_that_its_encoder_gives(self) -> None:
        config = WhisperConfig(d_model=8, encoder_layers=1, encoder_attention_heads=1, encoder_ffn_dim=8)
        encoder = WhisperEncoder(config).eval()
        steps = encoder.conv2(encoder.conv1(torch.zeros(1, config.num_mel_bins, 3000))).shape[2]
        assert conv_lengths([3000], *WHISPER).tolist() == [steps] == [1500]
        lengths = torch.arange(1, 100)
        assert_equal(conv_lengths(lengths, *WHISPER), encoder._get_feat_extract_output_lengths(lengths))

    def test_a_clip_shorter_than_the_first_frame_has_none_and_nothing_is_negative(self) -> None:
        assert conv_lengths([0, 1, 399, 400], *WAV2VEC2).tolist() == [0, 0, 0, 1]

    def test_a_number_stands_for_every_layer(self) -> None:
        assert_equal(conv_lengths([50], 3, (2, 2), 1), conv_lengths([50], (3, 3), (2, 2), (1, 1)))
        assert conv_lengths([50], 3, 2).tolist() == [24]

    @pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64])
    def test_any_integer_dtype_without_overflow(self, dtype: torch.dtype) -> None:
        found = conv_lengths(torch.tensor([100, 120], dtype=dtype), 3, 1, 60)
        assert found.dtype == torch.int64
        assert found.tolist() == [218, 238]

    def test_is_one_graph_for_every_batch(self) -> None:
        compiled = torch.compile(conv_lengths, fullgraph=True, dynamic=True, backend="eager")
        for lengths in (torch.tensor([400, 16_000]), torch.tensor([5, 720, 48_000])):
            assert_equal(compiled(lengths, *WAV2VEC2), conv_lengths(lengths, *WAV2VEC2))

    @pytest.mark.parametrize(
        ("arguments", "error", "message"),
        [
            (((3, 3), (1, 2, 2)), ValueError, r"`kernel` must have a value for each of the 3 layers, got 2"),
            ((3, 0), ValueError, r"`stride` must be at least 1, got 0"),
            ((3, 1, -1), ValueError, r"`padding` must be at least 0, got -1"),
            ((3, (1, 2.0)), TypeError, r"`stride` must be an integer, got float"),
            (("33", 1), TypeError, r"`kernel` must be an integer or a sequence of them, got str"),
        ],
    )
    def test_each_refusal_names_the_argument_and_what_it_got(
        self, arguments: tuple, error: type[Exception], message: str
    ) -> None:
        with pytest.raises(error, match=message):
            conv_lengths([100], *arguments)

    def test_nothing_stays_nothing_however_it_is_padded(self) -> None:
        assert conv_lengths([0, 1], kernel=3, stride=1, padding=2).tolist() == [0, 3]


class TestWhatHoldsLengths:
    @pytest.mark.parametrize(
        "lengths", [[1, 3], (1, 3), np.array([1, 3]), np.array([1, 3], dtype=np.int16), torch.tensor([1, 3])]
    )
    def test_lists_arrays_and_tensors(self, lengths: object) -> None:
        assert lengths_to_mask(lengths, 3).tolist() == [[True, False, False], [True] * 3]
        assert conv_lengths(lengths, 1, 1).tolist() == [1, 3]

    def test_of_no_utterance(self) -> None:
        assert lengths_to_mask([], 3).shape == (0, 3)
        assert lengths_to_mask([]).shape == (0, 0)

    @pytest.mark.parametrize(
        ("lengths", "error", "message"),
        [
            ([0.5, 1.0], TypeError, "got torch.float32; for lengths relative to the longest use `relative_lengths`"),
            ([[1], [1, 2]], TypeError, r"in a tensor, list or array of shape \(batch\), got list"),
            ("12", TypeError, r"in a tensor, list or array of shape \(batch\), got str"),
            (None, TypeError, r"in a tensor, list or array of shape \(batch\), got NoneType"),
            ([True, False], TypeError, "must be integer numbers of frames, got torch.bool"),
            (3, ValueError, r"`lengths` must have shape \(batch\), got \(\)"),
            ([[1, 2]], ValueError, r"`lengths` must have shape \(batch\), got \(1, 2\)"),
        ],
    )
    def test_each_refusal_names_what_it_got(self, lengths: object, error: type[Exception], message: str) -> None:
        for function in (lengths_to_mask, lambda lengths: conv_lengths(lengths, 3, 1)):
            with pytest.raises(error, match=message):
                function(lengths)


class TestAttentionMaskLengths:
    @pytest.mark.parametrize("dtype", [torch.bool, torch.int32, torch.int64, torch.uint8])
    def test_count_what_is_real(self, dtype: torch.dtype) -> None:
        mask = torch.tensor([[1, 1, 1], [1, 0, 0], [0, 0, 0]], dtype=dtype)
        assert attention_mask_lengths(mask).tolist() == [3, 1, 0]
        assert attention_mask_lengths(torch.ones(2, 0, dtype=dtype)).tolist() == [0, 0]

    def test_of_whisper_s_extractor_end_in_as_many_states_as_an_utterance_alone_has(self) -> None:
        extractor = WhisperFeatureExtractor(feature_size=8)
        waveforms = [np.zeros(samples, dtype=np.float32) for samples in (16_000, 8_160, 48_000)]
        batch = extractor(waveforms, sampling_rate=16_000, return_attention_mask=True, return_tensors="pt")
        frames = conv_lengths(attention_mask_lengths(batch.attention_mask), *WHISPER)
        alone = [
            extractor(waveform, sampling_rate=16_000, padding=False, return_tensors="np").input_features.shape[-1]
            for waveform in waveforms
        ]
        assert frames.tolist() == conv_lengths(alone, *WHISPER).tolist()

    @pytest.mark.parametrize("row", [[0, 1, 1], [1, 0, 1]])
    def test_padding_that_does_not_come_last_is_refused(self, row: list[int]) -> None:
        with pytest.raises(ValueError, match=r'padding last, got a row .*; use `padding_side="right"`'):
            attention_mask_lengths(torch.tensor([[1, 1, 1], row]))

    def test_each_refusal_names_the_argument_and_what_it_got(self) -> None:
        with pytest.raises(TypeError, match=r"must be bool or integer, .* got torch.float32; .* `attention_mask == 0`"):
            attention_mask_lengths(torch.zeros(1, 3))
        with pytest.raises(ValueError, match=r"`attention_mask` must have shape \(batch, samples\), got \(3,\)"):
            attention_mask_lengths(torch.ones(3, dtype=torch.long))


class TestRelativeLengths:
    @given(st.lists(st.integers(0, 4_000_000), min_size=1, max_size=5))
    def test_are_the_samples_that_the_shares_were_made_of(self, samples: list[int]) -> None:
        longest = max(*samples, 1)
        shares = torch.tensor(samples) / longest  # as SpeechBrain's PaddedBatch makes them
        assert relative_lengths(shares, longest).tolist() == samples

    def test_nothing_has_no_length(self) -> None:
        assert relative_lengths(torch.tensor([0.0, 0.0]), 0).tolist() == [0, 0]

    def test_speechbrain_s_advice_of_shares_of_frames_counts_padding(self) -> None:
        """Why they are turned into samples first."""
        samples = torch.arange(400, 16_001)
        frames = conv_lengths(samples, *WAV2VEC2)
        shares = (samples / 16_000 * 49).round().long()
        assert (shares > frames).any()

    def test_each_refusal_names_the_argument_and_what_it_got(self) -> None:
        with pytest.raises(TypeError, match=r"must be floating point shares of the longest, got torch.int64"):
            relative_lengths(torch.tensor([3]), 3)
        with pytest.raises(TypeError, match=r"`longest` must be an integer, got float"):
            relative_lengths(torch.tensor([0.5]), 3.0)
        with pytest.raises(ValueError, match=r"`lengths` must have shape \(batch\), got \(1, 1\)"):
            relative_lengths(torch.tensor([[0.5]]), 3)


class TestTheWayOut:
    """What a wrong mask or wrong frames are told."""

    def told(self, frames: Tensor, mask: Tensor | None) -> str:
        with pytest.raises(ValueError, match="must have") as error:
            framealign.AttentivePooling(8)(frames, mask)
        return str(error.value)

    def test_frames_with_time_last(self) -> None:
        assert "use `frames.transpose(1, 2)`" in self.told(torch.randn(2, 8, 30), None)
        assert "use `frames.transpose(1, 2)`" not in self.told(torch.randn(2, 30, 9), None)
        with pytest.raises(ValueError, match=r"if `frames` are \(batch, dim, time\), use `frames.transpose"):
            framealign.MeanPooling()(torch.randn(2, 8, 30), torch.ones(2, 30, dtype=torch.bool))

    def test_a_mask_of_samples(self) -> None:
        message = self.told(torch.randn(2, 49, 8), torch.ones(2, 16_000, dtype=torch.bool))
        assert "`mask` must have shape (batch, time) = (2, 49) to match `frames`, got (2, 16000)" in message
        assert "`attention_mask_lengths` and `conv_lengths`" in message
        for length, is_of_samples in ((48, False), (97, False), (98, True)):
            message = self.told(torch.randn(2, 49, 8), torch.ones(2, length, dtype=torch.bool))
            assert ("conv_lengths" in message) == is_of_samples

    def test_a_mask_of_another_batch_or_another_number_of_dimensions(self) -> None:
        for shape in ((3, 98), (49,), (2, 49, 8)):
            message = self.told(torch.randn(2, 49, 8), torch.ones(shape, dtype=torch.bool))
            assert f"`mask` must have shape (batch, time) = (2, 49) to match `frames`, got {shape}" in message
            assert "conv_lengths" not in message


class TestFrameworks:
    """The lines of docs/masks.md: the real frames of a padded batch are as many as those of each utterance alone."""

    SAMPLES = (16_000, 9_999, 400)

    def batch(self) -> tuple[list[Tensor], Tensor]:
        waveforms = [torch.randn(samples) for samples in self.SAMPLES]
        return waveforms, nn.utils.rnn.pad_sequence(waveforms, batch_first=True)

    @torch.no_grad()
    def test_torchaudio_s_lengths_are_lengths(self) -> None:
        torchaudio = pytest.importorskip("torchaudio")
        model = torchaudio.models.wav2vec2_model(
            "layer_norm", None, False, 16, 0.0, 1, 2, 1, 1, 0.0, 16, 0.0, 0.0, True, 0.0, None
        ).eval()
        waveforms, padded = self.batch()
        frames, lengths = model(padded, torch.tensor(self.SAMPLES))
        assert_equal(lengths.long(), conv_lengths(self.SAMPLES, *WAV2VEC2))
        mask = lengths_to_mask(lengths, frames.shape[1])
        assert mask.sum(1).tolist() == [model(waveform[None])[0].shape[1] for waveform in waveforms]

    def test_packed_sequences(self) -> None:
        padded = nn.utils.rnn.pack_sequence([torch.randn(5, 2), torch.randn(3, 2)])
        frames, lengths = nn.utils.rnn.pad_packed_sequence(padded, batch_first=True)
        assert lengths_to_mask(lengths, frames.shape[1]).sum(1).tolist() == [5, 3]

    def test_a_jagged_nested_tensor_is_packed_frames(self) -> None:
        utterances = [torch.randn(5, 8), torch.randn(3, 8)]
        nested = torch.nested.nested_tensor(utterances, layout=torch.jagged)
        pooled = framealign.MeanPooling()(nested.values(), cu_seqlens=nested.offsets())
        torch.testing.assert_close(pooled.utterance, torch.stack([frames.mean(0) for frames in utterances]))
