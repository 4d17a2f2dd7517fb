"""Every family of speech Transformers keeps the same promises, and computes what transformers computes."""

import pytest
import torch
from transformers import WhisperForAudioClassification

from families import FAMILIES, LAYERS, assert_same_as_alone, change_json, rename_weights, save, save_model
from recipe.data.audio import read_waveform
from recipe.errors import RecipeError
from recipe.features.backbone import pad
from recipe.features.backbones import load_backbone
from recipe.features.backbones.whisper import windows
from recipe.settings import Settings

every_family = pytest.mark.parametrize("family", FAMILIES)
CHOICES = [(0, "last"), (0, "1"), (0, "weighted"), (1, "last"), (2, "2"), (2, "weighted"), (LAYERS, "last")]
every_choice = pytest.mark.parametrize(("frozen", "layers"), CHOICES)


def loaded(folder, frozen=0, layers="last"):
    return load_backbone(str(folder), Settings(frozen_layers=frozen, layers=layers)).eval()


def waveforms():
    # Level, length and offset all differ: whatever is normalised over a batch would show
    sizes = (24_000, 0.1), (480, 0.5), (9_999, 0.001)
    return [scale * torch.randn(samples) + 0.01 for samples, scale in sizes]


def reference_states(model, backbone, waveform):
    """transformers' own, of one utterance; of Whisper, which takes one length only, its layers one by one."""
    if model.config.model_type != "whisper":
        normalised = (waveform - waveform.mean()) / (waveform.var(correction=0) + 1e-7).sqrt()
        found = model(normalised[None], output_hidden_states=True)
        return [*found.hidden_states[:-1], found.last_hidden_state]  # the one behind the final norm
    encoder = getattr(model, "model", model).encoder
    steps = torch.nn.functional.gelu(encoder.conv1(backbone.log_mel(waveform)[None]))
    steps = torch.nn.functional.gelu(encoder.conv2(steps)).transpose(1, 2)
    states = [steps + encoder.embed_positions.weight[: steps.shape[1]]]
    for layer in encoder.layers:
        states.append(layer(states[-1], None))
    return [*states[:-1], encoder.layer_norm(states[-1])]


@every_family
@every_choice
@torch.no_grad()
def test_states_are_those_of_transformers(family, frozen, layers, tmp_path):
    model = save(family, tmp_path)
    backbone = loaded(tmp_path, frozen, layers)
    waveform = waveforms()[0]
    states = reference_states(model, backbone, waveform)
    assert len(states) == LAYERS + 1
    if family.startswith("whisper") or family.endswith("stable"):  # normalised before layers, and not behind
        states = [*(torch.nn.functional.layer_norm(state, state.shape[2:]) for state in states[:-1]), states[-1]]
    if layers == "weighted":
        backbone.state_weights.copy_(torch.randn(LAYERS + 1))
        expected = sum(w * state for w, state in zip(backbone.state_weights.softmax(0), states, strict=True))
    else:
        expected = states[-1 if layers == "last" else int(layers)]
    frames, mask = backbone([waveform])
    assert mask.all()
    torch.testing.assert_close(frames, expected, rtol=1e-4, atol=1e-4)


@every_family
@every_choice
@torch.no_grad()
def test_an_utterance_alone_equals_the_same_one_in_a_batch_padded_with_nan(family, frozen, layers, tmp_path):
    save(family, tmp_path)
    backbone, batch = loaded(tmp_path, frozen, layers), waveforms()
    features, mask = pad([backbone.features(waveform) for waveform in batch])
    frames, mask = backbone.encode(features.masked_fill(~mask[..., None], torch.nan), mask)
    assert_same_as_alone(backbone, batch, frames, mask)


@torch.no_grad()
def test_data2vec_without_its_padding_cleared_between_convolutions_would_differ(tmp_path):
    """The test above can fail: transformers' own forward, with the attention mask that it takes, does."""
    model = save("data2vec-audio", tmp_path)
    steps = torch.randn(2, 40, 32)
    mask = torch.arange(40) < torch.tensor([[40], [20]])
    together = model.encoder(steps.clone(), attention_mask=mask).last_hidden_state[1, :20]
    alone = model.encoder(steps[1:, :20].clone()).last_hidden_state[0]
    assert (together - alone).abs().max() > 1e-2


@every_family
@every_choice
def test_frozen_layers_learn_nothing_and_those_above_learn(family, frozen, layers, tmp_path):
    save(family, tmp_path)
    backbone = load_backbone(str(tmp_path), Settings(frozen_layers=frozen, layers=layers)).train()
    frames, _ = backbone(waveforms())
    if frames.requires_grad:  # a backbone may be frozen as a whole
        (frames * torch.randn_like(frames)).sum().backward()
    learned = {name for name, p in backbone.named_parameters() if p.grad is not None and p.grad.any()}
    waiting = {name for name, p in backbone.named_parameters() if p.requires_grad and p.grad is None}
    assert not waiting  # distributed training would wait for them too
    read = LAYERS if not layers.isdigit() else int(layers)
    numbers = {
        int(name.split("layers.")[1].split(".")[0]) for name in learned if ".layers." in name and "pos_conv" not in name
    }
    assert numbers == set(range(frozen, read))
    assert ("state_weights" in learned) == (layers == "weighted")
    assert not any("feature_extractor" in name or "conv1" in name for name in learned)


@every_family
@torch.no_grad()
def test_the_front_end_is_all_that_features_depend_on(family, tmp_path):
    save(family, tmp_path)
    one, other = loaded(tmp_path, 2), loaded(tmp_path, 2)
    for name, parameter in other.named_parameters():
        if parameter.requires_grad:
            parameter.add_(1.0)
            assert not any(parameter is value for value in other.front_end().values()), name
    waveform = waveforms()[0]
    torch.testing.assert_close(one.features(waveform), other.features(waveform), rtol=0, atol=0)
    first = next(iter(other.front_end().values()))
    first.add_(1.0)
    assert not torch.equal(one.features(waveform), other.features(waveform))


@every_family
def test_training_mode_has_no_dropout_in_the_frozen_part(family, tmp_path):
    save(family, tmp_path)
    backbone = loaded(tmp_path, 2).train()
    waveform = waveforms()[0]
    torch.testing.assert_close(backbone.features(waveform), backbone.features(waveform), rtol=0, atol=0)


@every_family
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@torch.no_grad()
def test_a_checkpoint_in_half_precision_is_used_in_float32(family, dtype, tmp_path):
    model = save(family, tmp_path, dtype)
    change_json(tmp_path / "config.json", dtype=str(dtype).removeprefix("torch."))
    backbone = loaded(tmp_path)
    assert {parameter.dtype for parameter in backbone.parameters()} == {torch.float32}
    waveform = waveforms()[0]
    expected = reference_states(model.float(), backbone, waveform)[-1]
    frames, _ = backbone([waveform])
    torch.testing.assert_close(frames, expected, rtol=1e-4, atol=1e-4)


@every_family
def test_weights_under_other_names_are_refused_and_one_is_named(family, tmp_path):
    save(family, tmp_path)
    rename_weights(tmp_path, "layers.1.", "strata.1.")
    with pytest.raises(RecipeError, match=r"do not have \d+ of those .*layers\.1\..*what they have is .*strata\.1\."):
        loaded(tmp_path)


@every_family
def test_a_preprocessor_for_another_rate_is_refused(family, tmp_path):
    save(family, tmp_path)
    change_json(tmp_path / "preprocessor_config.json", sampling_rate=8000)
    with pytest.raises(RecipeError, match="asks for 8000 Hz, and the recipe reads audio at 16000 Hz"):
        loaded(tmp_path)


@every_family
@pytest.mark.parametrize("file", ["config.json", "preprocessor_config.json"])
def test_a_folder_with_python_of_its_own_is_refused_and_not_run(family, file, tmp_path):
    save(family, tmp_path)
    ran = tmp_path / "ran"
    for name in ("modeling_own", "processing_own"):
        (tmp_path / f"{name}.py").write_text(f"open({str(ran)!r}, 'w').close()\n")
    kinds = {"AutoConfig": "modeling_own.Own", "AutoFeatureExtractor": "processing_own.Own"}
    change_json(tmp_path / file, auto_map=kinds)
    with pytest.raises(RecipeError, match="brings Python code of its own, which the recipe does not run"):
        loaded(tmp_path)
    assert not ran.exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (Settings(layers="4"), r"--layers 4: backbone .* has 3 layers"),
        (Settings(frozen_layers=4), r"--frozen_layers 4: backbone .* has 3 layers"),
        (Settings(frozen_layers=2, layers="1"), r"--frozen_layers 2: backbone .* has state 1 as its frames"),
    ],
)
@pytest.mark.parametrize("family", ["wav2vec2", "whisper"])
def test_layers_that_are_not_there_are_refused(family, settings, message, tmp_path):
    save(family, tmp_path)
    with pytest.raises(RecipeError, match=message):
        load_backbone(str(tmp_path), settings)


def test_an_encoder_that_is_no_transformer_has_no_layers_to_choose():
    for settings in (Settings(frozen_layers=1), Settings(layers="weighted")):
        with pytest.raises(RecipeError, match="dvector: is no Transformer"):
            load_backbone("dvector", settings)


@torch.no_grad()
def test_whisper_is_read_from_a_whole_model_and_from_its_encoder_alone(tmp_path):
    whole = save("whisper", tmp_path / "whole")
    classifier = WhisperForAudioClassification(whole.config)
    classifier.encoder.load_state_dict(whole.model.encoder.state_dict())
    waveform = waveforms()[0]
    expected, _ = loaded(tmp_path / "whole")([waveform])
    for number, part in enumerate((whole.model, whole.model.encoder, classifier)):
        save_model(part, tmp_path / str(number))
        frames, _ = loaded(tmp_path / str(number))([waveform])
        torch.testing.assert_close(frames, expected, rtol=0, atol=0)


@torch.no_grad()
def test_whispers_own_forward_gives_the_same_at_the_one_length_that_it_takes(tmp_path):
    model = save("whisper", tmp_path)
    backbone = loaded(tmp_path)
    waveform = 0.1 * torch.randn(32_000)
    inputs = backbone.extractor(waveform.numpy(), sampling_rate=16_000, return_tensors="pt").input_features
    expected = model.model.encoder(inputs).last_hidden_state
    frames, _ = backbone([waveform])
    torch.testing.assert_close(frames, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("samples", [400, 401, 480, 9_999, 16_000, 31_999, 32_000])
def test_the_log_mel_spectrum_is_that_of_the_extractor_without_the_padding(samples, tmp_path):
    save("whisper", tmp_path)
    backbone = loaded(tmp_path)
    waveform = 0.1 * torch.randn(samples)
    padded = backbone.extractor(waveform.numpy(), sampling_rate=16_000, return_tensors="pt").input_features[0]
    found = backbone.log_mel(waveform)
    assert found.shape == (20, -(-samples // 160))
    torch.testing.assert_close(found, padded[:, : found.shape[1]], rtol=0, atol=1e-5)


@pytest.mark.parametrize("frozen", [0, 1, LAYERS])
@torch.no_grad()
def test_a_longer_utterance_is_encoded_in_equal_windows_that_do_not_see_each_other(frozen, tmp_path):
    model = save("whisper", tmp_path)
    backbone = loaded(tmp_path, frozen)
    encoder, waveform = model.model.encoder, 0.1 * torch.randn(80_300)  # 251 frames: three windows of at most 100
    steps = loaded(tmp_path).convolve(waveform)
    assert len(steps) == 251
    windows_ = []
    for part in steps.tensor_split([84, 168]):
        hidden = (part + encoder.embed_positions.weight[: len(part)])[None]
        for layer in encoder.layers:
            hidden = layer(hidden, None)
        windows_.append(encoder.layer_norm(hidden)[0])
    frames, mask = backbone([waveform, waveform[:20_000]])
    torch.testing.assert_close(frames[0], torch.cat(windows_), rtol=1e-4, atol=1e-4)
    alone, _ = backbone([waveform[:20_000]])
    torch.testing.assert_close(frames[1, mask[1]], alone[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("longest", [1, 7, 100])
def test_windows_are_as_few_and_as_equal_as_can_be(longest):
    for length in (1, 2, 6, 7, 8, 13, 14, 15, 99, 100, 101, 250):
        mask = torch.zeros(1, 260, dtype=torch.bool)
        mask[:, :length] = True
        window, place = (found[0, :length] for found in windows(mask, longest))
        sizes = window.bincount()
        assert len(sizes) == -(-length // longest)
        assert sizes.max() <= longest
        assert sizes.max() - sizes.min() <= 1
        assert place.tolist() == [step for size in sizes for step in range(size)]


def test_the_mask_is_not_read(tmp_path):
    """A mask without values stands for one on a GPU that the host would have to wait for."""
    for family in ("wav2vec2", "whisper", "wavlm"):
        save(family, tmp_path / family)
        backbone = loaded(tmp_path / family, 1).to("meta")
        frames, _ = backbone.encode(
            torch.empty(2, 50, 32, device="meta"), torch.empty(2, 50, dtype=torch.bool, device="meta")
        )
        assert frames.shape == (2, 50, 32)


# ---- real weights on real speech


@pytest.fixture(scope="module", params=["whisper-base-encoder", "whisper-tiny.en-encoder"])
def real_whisper(request, models_root):
    return str(models_root / request.param)


@pytest.fixture(scope="module")
def speech(data_root):
    paths = sorted((data_root / "emodb" / "wav").glob("*.wav"))[::45]
    return [read_waveform(path) for path in paths]


@torch.no_grad()
def test_real_whisper_gives_transformers_frames_for_30_seconds(real_whisper, speech):
    backbone = load_backbone(real_whisper, Settings()).eval()
    silence = torch.zeros(30 * 16_000 - len(speech[0]))
    inputs = backbone.extractor(speech[0].numpy(), sampling_rate=16_000, return_tensors="pt").input_features
    expected = WhisperForAudioClassification.from_pretrained(real_whisper, dtype=torch.float32).encoder(inputs)
    frames, _ = backbone([torch.cat([speech[0], silence])])
    torch.testing.assert_close(frames, expected.last_hidden_state, rtol=1e-4, atol=1e-4)
    log_mel = backbone.log_mel(speech[0])
    torch.testing.assert_close(log_mel, inputs[0, :, : log_mel.shape[1]], rtol=0, atol=1e-5)


@torch.no_grad()
def test_real_whisper_says_the_same_of_speech_alone_and_in_a_batch(real_whisper, speech):
    backbone = load_backbone(real_whisper).eval()  # with the settings that suit it
    assert backbone.frozen == backbone.depth // 2 == backbone.read - 1
    frames, mask = backbone(speech)
    assert_same_as_alone(backbone, speech, frames, mask)
