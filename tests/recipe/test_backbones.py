"""Backbones by name: padding must not change a frame, and what cannot be loaded says so in one line.

What holds for every family of Transformers is in test_transformers.py.
"""

import pytest
import torch
from transformers import BertConfig

from families import FAMILIES, assert_same_as_alone, save
from recipe.errors import RecipeError
from recipe.features.backbone import pad
from recipe.features.backbones import load_backbone


@pytest.fixture(params=["tiny", "dvector"])
def backbone(request):
    return load_backbone(request.param).eval()


def waveforms():
    # Level, length and offset all differ: whatever is normalised over a batch would show
    return [scale * torch.randn(samples) + 0.01 for samples, scale in ((48_000, 0.1), (400, 0.5), (9_999, 0.001))]


@torch.no_grad()
def test_an_utterance_alone_equals_the_same_one_in_a_padded_batch(backbone):
    batch = waveforms()
    frames, mask = backbone(batch)
    assert frames.shape == (*mask.shape, backbone.dim)
    assert_same_as_alone(backbone, batch, frames, mask)


@torch.no_grad()
def test_naive_padding_does_change_frames(tmp_path):
    """The test above can fail: a padded waveform, as transformers pads it, changes the short clip's frames."""
    model = save("wav2vec2", tmp_path)
    long, _, short = waveforms()
    padded = torch.stack([long, torch.nn.functional.pad(short, (0, len(long) - len(short)))])
    attention_mask = torch.arange(len(long)) < torch.tensor([[len(long)], [len(short)]])
    together = model(padded, attention_mask=attention_mask).last_hidden_state[1]
    alone = model(short[None]).last_hidden_state[0]
    assert (together[: len(alone)] - alone).norm() > 0.1 * alone.norm()


def test_the_front_end_is_frozen_and_the_rest_is_not(backbone):
    backbone.train()
    features, mask = pad([backbone.features(waveform) for waveform in waveforms()])
    assert not features.requires_grad
    frames, _ = backbone.encode(features, mask)
    frames.sum().backward()
    trained = [name for name, p in backbone.named_parameters() if p.grad is not None and p.grad.any()]
    assert trained
    assert all(p.grad is None for name, p in backbone.named_parameters() if "feature_extractor" in name)


@torch.no_grad()
def test_training_mode_neither_masks_nor_drops_layers(tmp_path):
    """SpecAugment fails on short clips, and layer drop would skip layers at random: both are off."""
    save("wav2vec2", tmp_path)
    config = load_backbone(str(tmp_path)).model.config
    assert config.layerdrop == 0
    assert config.apply_spec_augment is False


def test_the_real_name_is_loaded_through_transformers(monkeypatch):
    """Without a network the default backbone ends in one line that says what to do."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(
        RecipeError, match=r"^backbone no-one/no-such-model: cannot be loaded .*--backbone dvector"
    ) as error:
        load_backbone("no-one/no-such-model")
    assert "\n" not in str(error.value)


def test_a_model_of_the_wrong_kind_is_refused(tmp_path):
    BertConfig().save_pretrained(tmp_path)
    with pytest.raises(RecipeError, match=r"is a bert model, not one of wav2vec2, hubert, wavlm.* whisper;"):
        load_backbone(str(tmp_path))


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(RecipeError, match="there is no such folder"):
        load_backbone(str(tmp_path / "nowhere"))


def test_missing_weights_or_preprocessor_are_named(tmp_path):
    FAMILIES["wav2vec2"].build().config.save_pretrained(tmp_path)
    with pytest.raises(RecipeError, match="its configuration loads, but its weights or its preprocessor do not"):
        load_backbone(str(tmp_path))


def test_dvector_does_not_import_the_packages_audio_stack():
    import subprocess
    import sys

    program = (
        "import sys; sys.path.insert(0, 'examples'); from recipe.features.backbones import load_backbone; "
        "load_backbone('dvector'); print([m for m in ('resemblyzer', 'librosa', 'webrtcvad') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
