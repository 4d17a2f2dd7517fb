"""A trained model in a folder of its own: written, read again, and refused when it is not whole."""

import json
import pickle
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from families import FAMILIES, save
from recipe.errors import RecipeError
from recipe.features.backbones import load_backbone
from recipe.models.folder import Description, read_model, write_model
from recipe.settings import Settings
from recipe.training.model import EmotionModel
from recipe.training.systems import POOLINGS
from sounds import SAMPLE_RATE

CLASSES = ("angry", "calm")
CHOICES = {"all": ("0", "last"), "one layer": ("1", "2"), "weighted": ("1", "weighted")}


def build(name, settings, pooling="cls"):
    torch.manual_seed(1)
    backbone = load_backbone(name, settings)
    model = EmotionModel(backbone, POOLINGS[pooling](backbone.dim, settings), len(CLASSES))
    with torch.no_grad():
        for parameter in model.parameters():  # as after a training: nothing is as it was loaded
            parameter += 0.01 * torch.randn_like(parameter)
    description = Description(
        "CLS pooling",
        "a backbone",
        pooling,
        CLASSES,
        settings.frozen_layers,
        settings.layers,
        settings.num_heads,
        settings.depth,
        longest=9.5,
        typical=4.25,
    )
    return model.eval(), description


def answers(model):
    waveforms = [0.1 * torch.randn(length, generator=torch.Generator().manual_seed(length)) for length in (9000, 5000)]
    with torch.no_grad():
        frames, mask = model.backbone(waveforms)
        pooled = model.pooling(frames, mask)
        return model.classifier(pooled.utterance), pooled.weights


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_comes_back_as_it_was_without_the_folder_it_came_from(family, choice, tmp_path):
    save(family, tmp_path / "hub")
    frozen, layers = CHOICES[choice]
    model, description = build(str(tmp_path / "hub"), Settings(frozen_layers=int(frozen), layers=layers))
    expected = answers(model)
    write_model(tmp_path / "model", model, description, "# A card\n")
    shutil.rmtree(tmp_path / "hub")
    torch.manual_seed(2)
    found, told = read_model(tmp_path / "model")
    assert told == description
    assert not found.training
    torch.testing.assert_close(answers(found), expected, rtol=0, atol=0)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_every_pooling_comes_back_as_it_was(pooling, tmp_path):
    model, description = build("tiny", Settings(), pooling)
    write_model(tmp_path, model, description, "")
    found, _ = read_model(tmp_path)
    torch.testing.assert_close(answers(found), answers(model), rtol=0, atol=0)


def test_a_dvector_needs_no_package_with_its_weights(tmp_path, monkeypatch):
    model, description = build("dvector", Settings())
    write_model(tmp_path, model, description, "")
    monkeypatch.setattr("recipe.features.backbones.dvector.find_spec", lambda _: None)
    found, _ = read_model(tmp_path)
    torch.testing.assert_close(answers(found), answers(model), rtol=0, atol=0)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    write_model(folder, *build("tiny", Settings()), "# A card\n")
    return folder


@pytest.fixture
def folder(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "model")


def change(folder, **values):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def flip(folder):
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-3] ^= 1
    (folder / "model.safetensors").write_bytes(content)


def other_weights(folder):
    """Whole, with a checksum that is right, and of another model."""
    from recipe.models.folder import checksum

    state = load_file(folder / "model.safetensors")
    state["classifier.weight"] = torch.zeros(5, state["classifier.weight"].shape[1])
    save_file(state, folder / "model.safetensors")
    change(folder, sha256=checksum(folder))


DAMAGES = {
    "no config": (lambda f: (f / "config.json").unlink(), "holds no config.json; give a model folder"),
    "no JSON": (lambda f: (f / "config.json").write_text("{"), "config.json: is no JSON"),
    "binary": (lambda f: (f / "config.json").write_bytes(b"\xff\xfe"), "config.json: is no JSON"),
    "a list": (lambda f: (f / "config.json").write_text("[]"), "is of another program"),
    "another program's": (lambda f: (f / "config.json").write_text('{"model_type": "wav2vec2"}'), "another program"),
    "a later format": (lambda f: change(f, framealign_model=2), "is of format 2, and this version reads 1"),
    "a pooling": (lambda f: change(f, pooling="nothing"), "its pooling is nothing, and known are attentive"),
    "a kind": (lambda f: change(f, kind="os"), "its backbone is of the kind os, and known are dvector, tiny"),
    "classes": (lambda f: change(f, classes=None), "config.json is not one of a model folder"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "its model.safetensors is missing"),
    "a flipped bit": (flip, "model.safetensors is not as it was written; copy the folder again"),
    "cut": (lambda f: (f / "model.safetensors").write_bytes(b"123"), "is not as it was written"),
    "other weights": (other_weights, "its weights and its configuration do not fit"),
    "no backbone": (lambda f: shutil.rmtree(f / "backbone"), "there is no such folder"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_folder_that_is_not_whole_is_refused_in_one_line(damage, folder):
    harm, message = DAMAGES[damage]
    harm(folder)
    with pytest.raises(RecipeError, match=message) as caught:
        read_model(folder)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(RecipeError, match=r"nowhere: there is no such folder; give a model folder"):
        read_model(tmp_path / "nowhere")


def test_a_folder_is_no_model_while_it_is_written(folder, monkeypatch):
    """Over an older one, whose configuration would else stand beside newer weights."""
    monkeypatch.setattr("recipe.models.folder.write_tensors", lambda *_: (_ for _ in ()).throw(OSError("full")))
    model, description = build("tiny", Settings())
    with pytest.raises(OSError, match="full"):
        write_model(folder, model, replace(description, system="newer"), "")
    with pytest.raises(RecipeError, match=r"holds no config\.json"):
        read_model(folder)


def test_nothing_is_unpickled(folder, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("unpickled")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    monkeypatch.setattr(torch, "load", refuse)
    read_model(folder)


def test_code_beside_a_backbone_is_not_run(folder):
    path = folder / "backbone" / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "auto_map": {"AutoConfig": "evil.Config"}}))
    (folder / "backbone" / "evil.py").write_text("raise SystemExit('run')")
    with pytest.raises(RecipeError, match="brings Python code of its own"):
        read_model(folder)


def test_weights_hold_the_rate_they_were_trained_at(folder):
    _, description = read_model(folder)
    assert description.sampling_rate == SAMPLE_RATE
