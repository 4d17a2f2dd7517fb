"""From a trained model to an answer: train_model.py, --save_models and predict.py, as from their command lines."""

import csv
import io
import json
import sys

import iemocap_two_stage
import numpy as np
import predict
import pytest
import soundfile
import train_model

from recipe.errors import RecipeError
from recipe.models.folder import read_model
from sounds import SAMPLE_RATE, tone
from trained import write_trained

FAST = ("--backbone", "tiny", "--stage1.epochs", 1, "--stage2.epochs", 1)


@pytest.fixture
def ask(monkeypatch, capsys):
    """Call predict.py; its exit status, and what it printed to both streams."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["predict.py", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            predict.main()
        return caught.value.code, *capsys.readouterr()

    return call


@pytest.fixture
def talk(tmp_path):
    soundfile.write(tmp_path / "talk.wav", tone(300, 1.2, 22_050, noise=0.05, dice=np.random.default_rng(0)), 22_050)
    return tmp_path / "talk.wav"


def test_from_a_corpus_to_an_answer(iemocap, run, ask, talk, tmp_path):
    printed = run(
        train_model.main, "--corpus", "iemocap", "--data", iemocap, *FAST, "--output", "trained", "--num_heads", 2
    )
    model = tmp_path / "trained" / "model"
    assert "python examples/predict.py trained/model speech.wav --timeline" in printed
    _, description = read_model(model)
    assert description.classes == ("angry", "happy", "neutral", "sad")
    assert (description.system, description.num_heads) == ("CLS + EAL + FUAL", 2)
    # all speakers but the one who chose the epoch
    [fold] = json.loads((tmp_path / "trained" / "folds.json").read_text())
    assert fold["validation"]["speakers"] == ["Ses01M"]
    assert fold["train"]["speakers"] == sorted(
        f"Ses0{n}{sex}" for n in range(1, 6) for sex in "FM" if (n, sex) != (1, "M")
    )
    assert "test" not in fold
    card = (model / "README.md").read_text()
    assert "| validation | 10 | 1: Ses01M |" in card
    assert "by request to USC's SAIL" in card
    assert "too good" in card
    assert "EAL at 0.5 (margin 0.8), FUAL at 0.5" in card
    assert str(tmp_path) not in "".join(p.read_text() for p in model.rglob("*") if p.suffix in (".md", ".json"))

    before = {path: path.stat().st_mtime_ns for path in model.rglob("*")}
    assert "2 of 2 trainings are finished" in run(
        train_model.main, "--corpus", "iemocap", "--data", iemocap, *FAST, "--output", "trained", "--num_heads", 2
    )
    assert {path: path.stat().st_mtime_ns for path in model.rglob("*")} == before

    status, out, err = ask(model, talk)
    assert status == 0
    assert out.startswith(f"{talk}: ")
    assert err == ""


def test_a_run_keeps_a_model_folder_of_each_training(iemocap, run, ask, talk, tmp_path):
    arguments = ("--data", iemocap, *FAST, "--systems", "cls-pooling", "--folds", 1, "--output", "run")
    run(iemocap_two_stage.main, *arguments, "--save_models")
    training = tmp_path / "run" / "trainings" / "seed-0-fold-1"
    result = json.loads((training / "cls-pooling" / "result.json").read_text())
    card = (training / "cls-pooling" / "model" / "README.md").read_text()
    assert "| test | 10 | 1: Ses01F |" in card
    assert f"| UA, mean recall of the classes | {result['ua']:.1%} [" in card
    assert "with no part in the training" in card
    assert read_model(training / "stage-1" / "model")[1].pooling == "attentive"
    assert ask(training / "cls-pooling" / "model", talk)[0] == 0


def test_without_save_models_there_are_none(iemocap, run, tmp_path):
    arguments = ("--data", iemocap, *FAST, "--systems", "cls-pooling", "--folds", 1, "--output", "run")
    run(iemocap_two_stage.main, *arguments)
    assert not list(tmp_path.glob("run/trainings/*/*/model"))


@pytest.mark.parametrize("name", ["paper", "mfcc-statistics-svm"])
def test_a_model_for_use_is_one_system_with_weights(name, iemocap, run):
    with pytest.raises(RecipeError, match=f"--system {name}: name one system of stage 2, such as cls-eal-fual"):
        run(train_model.main, "--corpus", "iemocap", "--data", iemocap, *FAST, "--system", name)


def test_attentive_pooling_with_the_losses_is_a_system_for_use(iemocap, run, ask, talk, tmp_path):
    arguments = ("--corpus", "iemocap", "--data", iemocap, *FAST, "--system", "attentive-eal-fual", "--eal_weight", 2)
    run(train_model.main, *arguments, "--output", "trained")
    _, description = read_model(tmp_path / "trained" / "model")
    assert (description.system, description.pooling) == ("attentive + EAL + FUAL", "attentive, one vector")
    assert "EAL at 2 (margin 0.8), FUAL at 0.5" in (tmp_path / "trained" / "model" / "README.md").read_text()
    assert ask(tmp_path / "trained" / "model", talk)[0] == 0


def test_a_dry_run_of_a_model_shows_who_is_kept_back(iemocap, run):
    printed = run(train_model.main, "--corpus", "iemocap", "--data", iemocap, *FAST, "--dry_run")
    assert "Ses01M" in printed
    assert "  test  " not in printed


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    write_trained(folder)
    return folder


@pytest.fixture
def folder(tmp_path, talk):
    """Two recordings, one in a folder below and by the same name, a file that is none, and litter."""
    root = tmp_path / "recordings"
    (root / "more").mkdir(parents=True)
    (root / "talk.wav").write_bytes(talk.read_bytes())
    soundfile.write(root / "more" / "talk.flac", np.stack([tone(500)] * 2, axis=1), SAMPLE_RATE)
    (root / "broken.wav").write_bytes(talk.read_bytes()[:1000])
    (root / "notes.txt").write_text("no audio")
    (root / "._talk.wav").write_bytes(b"litter")
    return root


def test_a_folder_as_json(model, folder, ask):
    status, out, err = ask(model, folder, "--json")
    assert status == 1
    broken, below, talk = map(json.loads, out.splitlines())
    assert broken["file"] == str(folder / "broken.wav")
    assert "truncated" in broken["error"]
    assert set(broken) == {"file", "error"}
    for answer, name in ((below, "more/talk.flac"), (talk, "talk.wav")):
        assert answer["file"] == str(folder / name)
        assert set(answer) == {"file", "label", "probabilities"}
        assert answer["label"] == max(answer["probabilities"], key=answer["probabilities"].get)
        assert sum(answer["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    assert err.startswith(f"1 of 3 recordings could not be used:\n  {folder / 'broken.wav'}: is truncated")


def test_a_folder_as_csv(model, folder, ask):
    (folder / "more" / "talk.flac").rename(folder / "more" / 'of "him", and me.flac')
    status, out, _ = ask(model, folder, "--csv")
    assert status == 1
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [row["file"].removeprefix(f"{folder}/") for row in rows] == [
        "broken.wav",
        'more/of "him", and me.flac',
        "talk.wav",
    ]
    assert [bool(row["error"]) for row in rows] == [True, False, False]
    assert sum(float(rows[1][f"p_{name}"]) for name in ("angry", "happy", "sad")) == pytest.approx(1, abs=1e-5)


def test_timelines_of_recordings_of_one_name_stand_beside_each_other(model, folder, ask, tmp_path):
    status, out, err = ask(model, folder, "--timeline", "--output", tmp_path / "answers", "--json")
    assert status == 1
    kinds = (".csv", ".labels.txt", ".png", ".rttm")
    names = {f"{stem}{kind}" for stem in ("talk", "talk-2") for kind in kinds}
    assert {path.name for path in (tmp_path / "answers").iterdir()} == names
    assert (tmp_path / "answers" / "talk.png").read_bytes().startswith(b"\x89PNG")
    assert f"pictures and segments: {tmp_path / 'answers'}" in err
    answer = json.loads(out.splitlines()[1])
    rows = list(csv.DictReader((tmp_path / "answers" / "talk.csv").open()))
    assert [row["class"] for row in rows] == [segment["class"] for segment in answer["segments"]]
    assert float(rows[-1]["end"]) == pytest.approx(1.0, abs=0.001)  # of the flac, which comes first


def test_what_comes_on_stdin(model, talk, ask, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(talk.read_bytes())))
    status, out, _ = ask(model, "-", talk, "--json")
    assert status == 0
    first, second = map(json.loads, out.splitlines())
    assert first.pop("file") == "-"
    second.pop("file")
    assert first == second


def test_a_folder_without_audio_is_told_before_the_model_is_read(tmp_path, ask):
    (tmp_path / "notes.txt").write_text("no audio")
    with pytest.raises(RecipeError, match=r"holds no audio files, by their names \(.*\.flac .*\.wav"):
        ask(tmp_path / "no-model", tmp_path)


def test_no_timeline_from_a_pooling_without_frames(tmp_path, talk, ask):
    write_trained(tmp_path / "model", pooling="statistics")
    with pytest.raises(RecipeError, match=r"--timeline: statistics pooling, of .*model, says nothing of frames"):
        ask(tmp_path / "model", talk, "--timeline")
    assert ask(tmp_path / "model", talk)[0] == 0
