"""Checkpoints: bit for bit what was written, whole or not there, and never a program of somebody else's."""

import copy
import json
import math
import pickle

import pytest
import torch
from safetensors.torch import save_file

from framealign import AttentivePooling, CLSSelfAttentionPooling
from recipe import files
from recipe.features.backbones import load_backbone
from recipe.files import write_text
from recipe.training import tensor_files
from recipe.training.checkpoint import Checkpoint
from recipe.training.model import EmotionModel
from recipe.training.tensor_files import write_tensors


@pytest.fixture(scope="module")
def backbone():
    return load_backbone("tiny")


@pytest.fixture
def model(backbone):
    return EmotionModel(copy.deepcopy(backbone), CLSSelfAttentionPooling(backbone.dim), 4)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "training" / "checkpoint.safetensors"


def trained(model, steps=3):
    """An optimizer after some steps of `model`."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        pooled, _ = model(torch.randn(2, 9, 32), torch.ones(2, 9, dtype=torch.bool))
        model.classifier(pooled.utterance).square().sum().backward()
        optimizer.step()
    return optimizer


def checkpoint_of(model, optimizer, epochs=3):
    return Checkpoint(
        epochs=[
            {"epoch": epoch, "loss": math.pi / epoch, "validation_ua": 1 / 3, "tiny": 5e-324, "fual": 0.1 + 0.2}
            for epoch in range(1, epochs + 1)
        ],
        model={name: value.clone() for name, value in model.learned_state().items()},
        best={name: value.clone() + 1 for name, value in model.learned_state().items()},
        optimizer=optimizer.state_dict()["state"],
        scaler={"scale": 65536.0, "growth_factor": 2.0, "backoff_factor": 0.5, "_growth_tracker": 17},
    )


def assert_equal(found, expected):
    assert found.epochs == expected.epochs
    assert found.scaler == expected.scaler
    assert {type(index) for index in found.optimizer} == {int}
    for state, other in [
        (found.model, expected.model),
        (found.best, expected.best),
        *((found.optimizer[index], expected.optimizer[index]) for index in expected.optimizer),
    ]:
        assert state.keys() == other.keys()
        for name, value in state.items():
            assert value.dtype == other[name].dtype
            assert torch.equal(value, other[name]), name
    assert found.optimizer.keys() == expected.optimizer.keys()


# ---- there and back


def test_what_is_written_is_read_bit_for_bit(model, path):
    checkpoint = checkpoint_of(model, trained(model))
    assert len(checkpoint.optimizer) > 10  # with two digits, too
    checkpoint.write(path)
    assert_equal(Checkpoint.read(path), checkpoint)
    checkpoint.write(path)  # over the former
    assert_equal(Checkpoint.read(path), checkpoint)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_the_best_epoch_may_be_the_last(model, path):
    """The two states are then the same tensors, which safetensors alone would refuse."""
    checkpoint = checkpoint_of(model, trained(model))
    checkpoint.best = checkpoint.model
    checkpoint.write(path)
    assert_equal(Checkpoint.read(path), checkpoint)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_every_bit_pattern_of_numbers_survives(path, dtype):
    bits = torch.randint(0, 256, (4096,), dtype=torch.uint8).view(dtype)
    view = bits.reshape(32, -1).T  # neither contiguous nor its own storage
    Checkpoint([{"epoch": 1}], model={"bits": view, "none": bits[:0], "one": bits[0]}).write(path)
    found = Checkpoint.read(path).model
    assert torch.equal(found["bits"].contiguous().view(torch.uint8), view.contiguous().view(torch.uint8))
    assert found["none"].shape == (0,)
    assert found["one"].shape == ()


def test_records_with_nan_and_infinity_survive(path):
    Checkpoint([{"epoch": 1, "loss": math.nan, "eal": math.inf}]).write(path)
    [record] = Checkpoint.read(path).epochs
    assert math.isnan(record["loss"])
    assert record["eal"] == math.inf


def test_a_training_goes_on_bit_for_bit(model, path):
    optimizer = trained(model)
    checkpoint_of(model, optimizer).write(path)

    def further(model, optimizer):
        torch.manual_seed(7)
        model.eval()  # no dropout
        for _ in range(2):
            optimizer.zero_grad()
            pooled, _ = model(torch.randn(2, 9, 32), torch.ones(2, 9, dtype=torch.bool))
            model.classifier(pooled.utterance).square().sum().backward()
            optimizer.step()
        return model.learned_state()

    found = Checkpoint.read(path)
    again = EmotionModel(load_backbone("tiny"), CLSSelfAttentionPooling(model.backbone.dim), 4)
    again.load_learned_state(found.model)
    other = torch.optim.AdamW([p for p in again.parameters() if p.requires_grad], lr=1e-3)
    other.load_state_dict({**other.state_dict(), "state": found.optimizer})
    one, two = further(model, optimizer), further(again, other)
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_what_was_read_is_not_the_file(path):
    """A training changes it in place, and the next checkpoint replaces the file."""
    Checkpoint([{"epoch": 1}], model={"weight": torch.ones(3)}).write(path)
    found = Checkpoint.read(path)
    Checkpoint([{"epoch": 2}], model={"weight": torch.zeros(3)}).write(path)
    assert found.model["weight"].tolist() == [1, 1, 1]
    found.model["weight"] += 1
    assert Checkpoint.read(path).model["weight"].tolist() == [0, 0, 0]


# ---- what cannot be read


def test_where_there_is_no_checkpoint_nothing_is_said(path, capsys):
    assert Checkpoint.read(path) is None
    assert capsys.readouterr().out == ""


def foreign(metadata, **tensors):
    def write(path, content):
        save_file({name: torch.ones(2) for name in tensors.values()}, path, metadata)

    return write


OURS = {"epochs": json.dumps([{"epoch": 1}]), "scaler": "{}"}
UNREADABLE = {
    "empty": lambda path, content: path.write_bytes(b""),
    "cut in the header": lambda path, content: path.write_bytes(content[:40]),
    "cut in the middle": lambda path, content: path.write_bytes(content[: len(content) // 2]),
    "one byte less": lambda path, content: path.write_bytes(content[:-1]),
    "random bytes": lambda path, content: path.write_bytes(bytes(range(256)) * 40),
    "zeros": lambda path, content: path.write_bytes(bytes(4096)),
    "text": lambda path, content: path.write_text("not a checkpoint\n" * 99),
    "a folder": lambda path, content: (path.unlink(), path.mkdir()),
    "no metadata": foreign(None, a="model/weight"),
    "metadata of others": foreign({"format": "pt"}, a="model/weight"),
    "no epochs": foreign({"scaler": "{}"}, a="model/weight"),
    "epochs that are no JSON": foreign({**OURS, "epochs": "[{"}, a="model/weight"),
    "tensors of another kind": foreign(OURS, a="weights/weight"),
    "tensors of no kind": foreign(OURS, a="weight"),
    "tensors named as a field": foreign(OURS, a="scaler/scale"),
    "tensors named as a method": foreign(OURS, a="write/it"),
    "an optimizer without numbers": foreign(OURS, a="optimizer/first/step"),
}


@pytest.mark.parametrize("kind", UNREADABLE)
def test_what_is_no_checkpoint_is_told_and_left_out(model, path, capsys, kind):
    checkpoint_of(model, trained(model)).write(path)
    UNREADABLE[kind](path, path.read_bytes())
    assert Checkpoint.read(path) is None
    out = capsys.readouterr().out
    assert out.startswith(f"note: {path}: not a whole checkpoint (")
    assert out.endswith("); this training begins anew.\n")
    assert out.count("\n") == 1
    if kind != "a folder":  # and a new one takes its place
        checkpoint_of(model, trained(model)).write(path)
        assert Checkpoint.read(path) is not None


class Malicious:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return (open, (str(self.marker), "w"))


@pytest.mark.parametrize("save", [torch.save, lambda thing, path: path.write_bytes(pickle.dumps(thing))])
def test_a_pickle_is_not_unpickled(tmp_path, capsys, save):
    path, marker = tmp_path / "checkpoint.safetensors", tmp_path / "marker"
    save({"model": Malicious(marker)}, path)
    assert Checkpoint.read(path) is None
    assert not marker.exists()
    assert "not a whole checkpoint" in capsys.readouterr().out
    with path.open("rb") as file:
        torch.load(file, weights_only=False) if save is torch.save else pickle.load(file)
    assert marker.exists()  # so it would have worked


# ---- interrupted


class Interrupted(BaseException):
    """As KeyboardInterrupt, which pytest would take for its own."""


def interrupt(*_, **__):
    raise Interrupted


def half_saved(tensors, path, metadata):
    path.write_bytes(b"half of it")
    raise Interrupted


MOMENTS = {
    "before the copy": (torch.Tensor, "clone", interrupt),
    "midway": (tensor_files, "save_file", half_saved),
    "before it is on disk": (files.os, "fsync", interrupt),
    "before it is renamed": (files.Path, "replace", interrupt),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_an_interrupted_write_leaves_the_former_whole(model, path, monkeypatch, moment):
    former, later = checkpoint_of(model, trained(model), 1), checkpoint_of(model, trained(model), 2)
    former.write(path)
    with monkeypatch.context() as patch:
        patch.setattr(*MOMENTS[moment])
        with pytest.raises(Interrupted):
            later.write(path)
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert_equal(Checkpoint.read(path), former)
    later.write(path)
    assert_equal(Checkpoint.read(path), later)


@pytest.mark.parametrize("moment", ["before it is on disk", "before it is renamed"])
def test_an_interrupted_text_leaves_the_former_whole(tmp_path, monkeypatch, moment):
    path = tmp_path / "result.json"
    write_text(path, "former")
    with monkeypatch.context() as patch:
        patch.setattr(*MOMENTS[moment])
        with pytest.raises(Interrupted):
            write_text(path, "later and longer")
    assert path.read_text() == "former"
    assert list(tmp_path.iterdir()) == [path]
    write_text(path, "später")
    assert path.read_bytes() == "später".encode()


def test_bytes_are_on_disk_before_the_name_is(tmp_path, monkeypatch):
    """In this order: a rename may outlive a power cut, and the content not."""
    done = []
    for owner, name in ((tensor_files, "save_file"), (files.os, "fsync"), (files.Path, "replace")):
        monkeypatch.setattr(owner, name, recorded(done, name, getattr(owner, name)))
    write_tensors(tmp_path / "weights.safetensors", {"weight": torch.ones(2)})
    assert done == ["save_file", "fsync", "replace"]


def recorded(done, name, function):
    def call(*arguments, **options):
        done.append(name)
        return function(*arguments, **options)

    return call


# ---- the model's state


def test_learned_state_is_all_but_the_frozen_front_end(model):
    learned = model.learned_state()
    left_out = model.state_dict().keys() - learned.keys()
    convolutions = model.backbone.model.feature_extractor
    front_end = {f"backbone.model.feature_extractor.{name}" for name in convolutions.state_dict()}
    assert left_out == {*front_end, "backbone.model.masked_spec_embed"}
    assert {name for name, p in model.named_parameters() if p.requires_grad} <= learned.keys()


def test_learned_state_goes_there_and_back(model):
    trained(model)
    state = {name: value.clone() for name, value in model.learned_state().items()}
    other = EmotionModel(load_backbone("tiny"), CLSSelfAttentionPooling(model.backbone.dim), 4)
    assert not all(torch.equal(other.learned_state()[name], value) for name, value in state.items())
    other.load_learned_state(state)
    assert other.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in other.state_dict().items())


@pytest.mark.parametrize("change", ["missing", "further", "renamed"])
def test_a_state_of_another_model_is_refused(model, change):
    state = model.learned_state()
    before = copy.deepcopy(model.state_dict())
    if change != "further":
        del state["classifier.bias"]
    if change != "missing":
        state["classifier.offset"] = torch.ones(4)
    state["classifier.weight"] = torch.ones(4, model.backbone.dim)
    with pytest.raises(ValueError, match="the state is of another model"):
        model.load_learned_state(state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_state_of_another_pooling_or_with_the_front_end_is_refused(model):
    other = EmotionModel(model.backbone, AttentivePooling(model.backbone.dim), 4)
    for state in (other.learned_state(), model.state_dict()):
        with pytest.raises(ValueError, match="the state is of another model"):
            model.load_learned_state(state)


def test_buffers_are_learned_too(backbone):
    pooling = AttentivePooling(backbone.dim)
    pooling.register_buffer("running", torch.arange(3))
    assert "pooling.running" in EmotionModel(backbone, pooling, 4).learned_state()
