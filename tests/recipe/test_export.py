"""Exported files: asked about padded batches of other sizes, they answer as the model does of each utterance alone."""

import json
import sys

import export as script
import pytest
import torch

from families import FAMILIES, save
from framealign import lengths_to_mask
from recipe.errors import RecipeError
from recipe.features.backbones import load_backbone
from recipe.models import export as module
from recipe.models.export import export
from recipe.models.folder import Description, read_model, write_model
from recipe.settings import Settings
from recipe.training.model import EmotionModel
from recipe.training.systems import POOLINGS
from trained import CLASSES, write_trained

TOLERANCE = {"rtol": 0, "atol": 1e-4}
# Those that stand for the others, whose frames are compared before they are exported: it takes up to half a minute
ONNX_POOLINGS = ("cls", "max", "attentive statistics")
WHOLE = (
    ("whisper", ".onnx", "1"),
    ("whisper", ".pt2", "weighted"),
    ("wav2vec2", ".onnx", "1"),
    ("wav2vec2-stable", ".pt2", "1"),
    ("wavlm", ".onnx", "1"),
    ("data2vec-audio", ".pt2", "1"),
)
SAMPLES = ((16_000, 9000, 12_345), (7000,))


def opened(file):
    """What answers a padded batch by a file, by name."""
    if file.suffix == ".pt2":
        return torch.export.load(file).module()
    session = pytest.importorskip("onnxruntime").InferenceSession(file, providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_outputs()]
    first, second = (one.name for one in session.get_inputs())

    def ask(inputs, mask):
        found = session.run(None, {first: inputs.numpy(), second: mask.numpy()})
        return {name: torch.as_tensor(values) for name, values in zip(names, found, strict=True)}

    return ask


def needs(suffix):
    if suffix == ".onnx":
        for package in ("onnx", "onnxscript", "onnxruntime"):
            pytest.importorskip(package)


def padded(rows, axis):
    """Inputs of different lengths in time, with NaN behind them, and the mask."""
    lengths = [row.shape[axis - 1] for row in rows]
    shape = [len(rows), *rows[0].shape]
    shape[axis] = max(lengths)
    inputs = torch.full(shape, torch.nan)
    for slot, row, length in zip(inputs, rows, lengths, strict=True):
        slot.narrow(axis - 1, 0, length).copy_(row)
    return inputs, lengths_to_mask(lengths, max(lengths))


@torch.no_grad()
def of_frames(model, frames):
    """What a model says of the frames of one utterance."""
    pooled = model.pooling(frames, None)
    found = {"probabilities": model.classifier(pooled.utterance).softmax(1), "attention": pooled.weights}
    if pooled.frames.shape[2] == pooled.utterance.shape[1]:
        found["frame_probabilities"] = model.classifier(pooled.frames).softmax(2)
    return found


def assert_answers(found, expected):
    assert list(found) == list(expected[0])
    for name, values in found.items():
        for row, alone in zip(values, expected, strict=True):
            torch.testing.assert_close(row[: alone[name].shape[1]], alone[name][0], **TOLERANCE)
            assert (row[alone[name].shape[1] :] == 0).all()


@pytest.mark.parametrize(
    ("pooling", "suffix"), [*((name, ".pt2") for name in POOLINGS), *((name, ".onnx") for name in ONNX_POOLINGS)]
)
def test_every_head_answers_as_the_model_does(pooling, suffix, tmp_path):
    needs(suffix)
    write_trained(tmp_path / "model", pooling=pooling)
    model, _ = read_model(tmp_path / "model")
    export(tmp_path / "model", tmp_path / f"head{suffix}", "head")
    ask = opened(tmp_path / f"head{suffix}")
    for lengths in ((23, 1, 40, 7), (1,), (90,)):
        frames = [torch.randn(length, model.backbone.dim) for length in lengths]
        assert_answers(ask(*padded(frames, axis=1)), [of_frames(model, one[None]) for one in frames])
    found = ask(torch.full((2, 5, model.backbone.dim), torch.nan), torch.zeros(2, 5, dtype=torch.bool))
    assert all(values.isfinite().all() for values in found.values())
    assert (found["attention"] == 0).all()


def write_family(name, folder, settings):
    """A model of that family whose parts are all felt."""
    save(name, folder / "hub")
    backbone = load_backbone(str(folder / "hub"), settings)
    model = EmotionModel(backbone, POOLINGS["cls"](backbone.dim, settings), len(CLASSES))
    torch.nn.init.normal_(model.classifier.weight)
    options = (settings.frozen_layers, settings.layers, settings.num_heads, settings.depth)
    write_model(folder / "model", model, Description("a", name, "cls", CLASSES, *options, 10, 4), "")
    return read_model(folder / "model")[0]


@pytest.mark.parametrize(("family", "suffix", "layers"), WHOLE)
def test_whole_models_answer_as_of_each_waveform_alone(family, suffix, layers, tmp_path):
    needs(suffix)
    model = write_family(family, tmp_path, Settings(frozen_layers=1, layers=layers))
    export(tmp_path / "model", tmp_path / f"whole{suffix}")
    ask = opened(tmp_path / f"whole{suffix}")
    for lengths in SAMPLES:
        waveforms = [0.1 * torch.randn(length) for length in lengths]
        with torch.no_grad():
            expected = [of_frames(model, model.backbone([waveform])[0]) for waveform in waveforms]
        whisper = family.startswith("whisper")
        rows = [model.backbone.log_mel(waveform) for waveform in waveforms] if whisper else waveforms
        assert_answers(ask(*padded(rows, axis=2 if whisper else 1)), expected)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("layers", ["last", "weighted"])
@torch.no_grad()
def test_a_whole_encoder_gives_the_frames_of_each_utterance_alone(family, layers, tmp_path):
    """What is exported, as it is before."""
    model = write_family(family, tmp_path, Settings(frozen_layers=1, layers=layers))
    backbone = model.backbone
    waveforms = [0.3 + torch.randn(length) for length in (20_000, 800, 9000)]
    rows = [backbone.raw(waveform) for waveform in waveforms]
    frames, mask = backbone.whole(*padded(rows, backbone.whole_input.time))
    for waveform, found, real in zip(waveforms, frames, mask, strict=True):
        alone, _ = backbone([waveform])
        assert real.sum() == alone.shape[1]
        torch.testing.assert_close(found[real], alone[0], rtol=1e-4, atol=1e-4)


def test_the_shortest_waveform_gives_two_frames():
    backbone = load_backbone("tiny")
    assert backbone.whole_input.shortest == 720
    assert [backbone([torch.randn(length)])[0].shape[1] for length in (719, 720)] == [1, 2]


def test_a_file_tells_what_it_is(tmp_path):
    needs(".onnx")
    import onnx

    write_trained(tmp_path / "model", pooling="max")
    for file in (tmp_path / "head.onnx", tmp_path / "head.pt2"):
        export(tmp_path / "model", file, "head")
    graph = onnx.load(tmp_path / "head.onnx")
    told = {one.key: one.value for one in graph.metadata_props}
    assert told["part"] == "head"
    assert json.loads(told["classes"]) == list(CLASSES)
    assert told["sampling_rate"] == "16000"
    assert told["frames"].startswith("(batch, time, 96) float32")
    axes = [[axis.dim_param or axis.dim_value for axis in one.type.tensor_type.shape.dim] for one in graph.graph.input]
    assert axes == [["batch", "time", 96], ["batch", "time"]]
    files = {module.METADATA: ""}
    torch.export.load(tmp_path / "head.pt2", extra_files=files)
    assert json.loads(files[module.METADATA]) == told


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    write_trained(folder, pooling="mean")
    return folder


def call(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["export.py", *map(str, arguments)])
    script.main()


def test_the_script_says_what_it_wrote(folder, tmp_path, monkeypatch, capsys):
    call(monkeypatch, folder, "--output", tmp_path / "new" / "head.pt2", "--part", "head")
    out, err = capsys.readouterr()
    assert out.startswith(f"{tmp_path}/new/head.pt2: head, 0.1 MB; its answers are the model's, within ")
    assert err == ""
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["head.pt2"]


def test_without_onnxruntime_a_file_is_not_compared(folder, tmp_path, monkeypatch, capsys):
    needs(".onnx")
    there = module.find_spec
    monkeypatch.setattr(module, "find_spec", lambda name: None if name == "onnxruntime" else there(name))
    monkeypatch.setattr(module, "onnx_file", lambda *_: b"")
    export(folder, tmp_path / "head.onnx", "head")
    assert "not compared with the model, for which onnxruntime is needed: pip install" in capsys.readouterr().out


def forbid(monkeypatch, name):
    monkeypatch.setattr(module, name, lambda *_: pytest.fail(f"{name} was called"))


def test_a_missing_package_is_told_before_the_model_is_read(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    forbid(monkeypatch, "read_model")
    with pytest.raises(
        RecipeError, match=r'onnx and onnxscript: not installed; run `pip install "framealign\[export\]'
    ):
        export(folder, tmp_path / "model.onnx")


def test_a_name_that_says_no_kind_of_file(folder, tmp_path, monkeypatch):
    forbid(monkeypatch, "read_model")
    with pytest.raises(RecipeError, match=r"model.bin: its name must end in \.onnx or \.pt2"):
        export(folder, tmp_path / "model.bin")


def test_an_lstm_is_refused_before_it_is_tried(tmp_path, monkeypatch, capsys):
    write_trained(tmp_path / "model", "dvector", pooling="mean")
    export(tmp_path / "model", tmp_path / "model.pt2")
    assert "the head alone, which reads frames; the whole cannot be exported: torch.export" in capsys.readouterr().err
    forbid(monkeypatch, "exported")
    with pytest.raises(RecipeError, match=r"writes an LSTM out step by step, for one length\. --part head can"):
        export(tmp_path / "model", tmp_path / "model.pt2", "whole")


def test_wavlm_is_refused_as_a_program_of_torch_export(tmp_path, monkeypatch):
    write_family("wavlm", tmp_path, Settings())
    forbid(monkeypatch, "exported")
    with pytest.raises(RecipeError, match=r"WavLM's attention is never asked about one utterance; write \.onnx"):
        export(tmp_path / "model", tmp_path / "model.pt2", "whole")


def test_more_than_an_onnx_file_can_hold_is_refused_before_it_is_tried(folder, tmp_path, monkeypatch):
    needs(".onnx")
    forbid(monkeypatch, "exported")
    monkeypatch.setattr(module, "ONNX_LIMIT", 100)
    with pytest.raises(
        RecipeError, match=r"model\.onnx: would be of 0\.0 GB, and ONNX files end at 2 GB; write a \.pt2"
    ):
        export(folder, tmp_path / "model.onnx")


@pytest.mark.parametrize("bias", [1e-2, torch.nan])
def test_a_file_that_differs_is_not_kept(bias, folder, tmp_path, monkeypatch):
    """And the one that was there stays."""
    file = tmp_path / "head.pt2"
    file.write_text("older")
    other, _ = read_model(folder)
    other.classifier.bias.data[0] += bias
    write, program = module.pt2_file, module.exported(module.Head(other))
    monkeypatch.setattr(module, "pt2_file", lambda _, texts: write(program, texts))
    with pytest.raises(RecipeError, match="the file's answers differ from the model's by"):
        export(folder, file, "head")
    assert [path.name for path in tmp_path.iterdir()] == ["head.pt2"]
    assert file.read_text() == "older"
