"""One training: learning rates, the epoch that is kept, what is predicted."""

import copy
import threading
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch.optim import AdamW

from recipe.data.corpus import Fold, Utterance
from recipe.features.backbones import load_backbone
from recipe.features.batches import Batch, UtteranceFeatures
from recipe.settings import Settings, Stage
from recipe.training import epoch as one_epoch
from recipe.training import fit as one_fit
from recipe.training.epoch import EpochTrainer, triangle
from recipe.training.fit import fit, parameter_groups
from recipe.training.model import EmotionModel, Trainee
from recipe.training.plan import Training
from recipe.training.predict import predict
from recipe.training.progress import Progress
from recipe.training.result import best_epoch
from recipe.training.stopping import Stop
from recipe.training.systems import STAGE_1, System

CLASSES = ("angry", "happy")
SETTINGS = Settings(Stage(2, 1e-3, 2e-3, 3e-3), Stage(3, 1e-3, 1e-3, 1e-3), batch_size=4, frame_budget=200)


@pytest.fixture
def data():
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(5, 40, (10,), generator=generator).tolist()
    utterances = [Utterance(str(i), Path(), CLASSES[i % 2], "") for i in range(len(lengths))]
    features = {str(i): torch.randn(length, 32, generator=generator) for i, length in enumerate(lengths)}
    return UtteranceFeatures(utterances, features, CLASSES)


def model(system=STAGE_1):
    torch.manual_seed(0)
    backbone = load_backbone("tiny")
    return EmotionModel(backbone, system.build_pooling(backbone.dim, SETTINGS), len(CLASSES))


def run_fit(trained, data, folder):
    folder.mkdir(parents=True, exist_ok=True)
    unit = Training(0, Fold(1, [], [], []), STAGE_1, folder)
    with Progress(6, 0, disable=True) as progress:
        return fit(Trainee(trained, STAGE_1.objective()), data, data, SETTINGS, Accelerator(cpu=True), unit, progress)


def test_rates_rise_and_fall_once_over_all_epochs(data, tmp_path, monkeypatch):
    shares = []
    set_rates = one_epoch.set_rates
    monkeypatch.setattr(one_epoch, "set_rates", lambda o, share: (shares.append(share), set_rates(o, share)))
    run_fit(model(), data, tmp_path)
    assert shares == [triangle(step, 6, SETTINGS.warmup) for step in range(6)]  # 2 epochs of 3 steps
    assert shares[0] == 1
    assert shares == sorted(shares, reverse=True)
    assert shares[-1] > 0


@pytest.mark.parametrize(("steps", "warmup"), [(1, 0.1), (10, 0.0), (100, 0.1), (7, 1.0)])
def test_the_triangle_stays_within_its_bounds(steps, warmup):
    shares = [triangle(step, steps, warmup) for step in range(steps)]
    assert all(0 < share <= 1 for share in shares)
    assert max(shares) == 1


def test_three_rates_and_nothing_frozen():
    trained = model()
    groups = parameter_groups(trained, SETTINGS.stage1)
    assert [group["rate"] for group in groups] == [1e-3, 2e-3, 3e-3]
    learned = [p for p in trained.parameters() if p.requires_grad]
    assert {id(p) for group in groups for p in group["params"]} == {id(p) for p in learned}
    assert not any(p.requires_grad for p in trained.backbone.model.feature_extractor.parameters())


def test_a_pooling_without_parameters_has_no_group():
    groups = parameter_groups(model(System("mean pooling", "mean")), SETTINGS.stage1)
    assert [group["rate"] for group in groups] == [1e-3, 3e-3]


def test_the_best_epoch_is_kept_and_of_equals_the_last(data, tmp_path, monkeypatch):
    uas = iter([0.9, 0.4])
    monkeypatch.setattr(one_fit, "score", lambda *_: type("Scores", (), {"ua": next(uas), "wa": 0.5}))
    states = []
    learned_state = EmotionModel.learned_state
    monkeypatch.setattr(
        one_fit, "copied", lambda state: states.append({k: v.clone() for k, v in state.items()}) or states[-1]
    )
    trained = model()
    records = run_fit(trained, data, tmp_path)
    assert [record["validation_ua"] for record in records] == [0.9, 0.4]
    first, last = states
    assert any(not torch.equal(first[name], last[name]) for name in first)
    for name, value in learned_state(trained).items():
        assert torch.equal(value, first[name])
    equals = [
        {"epoch": 1, "validation_ua": 0.5},
        {"epoch": 2, "validation_ua": 0.7},
        {"epoch": 3, "validation_ua": 0.7},
    ]
    assert best_epoch(equals) == 3


def test_predictions_are_those_of_each_utterance_alone(data):
    trained = model(System("CLS pooling")).eval()
    found = predict(trained, data, SETTINGS, Accelerator(cpu=True))
    start = 0
    for row, features in enumerate(data.features):
        with torch.no_grad():
            pooled, _ = trained(features[None], torch.ones(1, len(features), dtype=torch.bool))
            torch.testing.assert_close(found.probabilities[row], trained.classifier(pooled.utterance)[0].softmax(0))
            torch.testing.assert_close(found.vectors[row], pooled.utterance[0])
            own = slice(start, start + int(found.lengths[row]))
            torch.testing.assert_close(found.weights[own], pooled.weights[0], rtol=1e-4, atol=1e-5)
            frames = trained.classifier(pooled.frames)[0].softmax(1)
            torch.testing.assert_close(found.frame_probabilities[own], frames, rtol=1e-4, atol=1e-5)
        start = own.stop
    assert start == len(found.weights)
    assert found.diagnostics["effective_frames"] > 1


# ---- batches made ahead


class AsForAGPU(UtteranceFeatures):
    """Its batches are made in a thread, as for a GPU, and go to the CPU all the same."""

    def batches(self, passes, device):
        return super().batches(passes, torch.device("cuda"))


@pytest.fixture
def ahead(data, monkeypatch):
    to = Batch.to
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)
    monkeypatch.setattr(Batch, "to", lambda batch, _: to(batch, torch.device("cpu")))
    found = copy.copy(data)
    found.__class__ = AsForAGPU
    return found


def run_epoch(data, progress=None):
    """An epoch of steps with one to three passes; its terms and the weights it leaves."""
    trained = model()
    trainee, optimizer = Trainee(trained, STAGE_1.objective()), AdamW(parameter_groups(trained, SETTINGS.stage1))
    progress = progress or Progress(3, 0, disable=True)
    trainer = EpochTrainer(trainee, optimizer, data, SETTINGS.stage1, SETTINGS, Accelerator(cpu=True), 0, progress)
    return trainer.train(epoch=1, stop=Stop()), trained.state_dict()


def test_an_epoch_with_batches_made_ahead_is_the_same_to_the_bit(data, ahead):
    (terms, state), (terms_ahead, state_ahead) = run_epoch(data), run_epoch(ahead)
    assert terms == terms_ahead
    assert all(torch.equal(state[name], state_ahead[name]) for name in state)


def test_predictions_from_batches_made_ahead_are_the_same_to_the_bit(data, ahead):
    trained = model()
    found, found_ahead = (predict(trained, side, SETTINGS, Accelerator(cpu=True)) for side in (data, ahead))
    for name, values in found.tensors().items():
        assert torch.equal(values, found_ahead.tensors()[name])


def test_an_error_of_the_thread_ends_the_epoch_in_its_own_words(ahead, monkeypatch):
    def padded(self, indices):
        raise OSError("the disk is gone")

    monkeypatch.setattr(AsForAGPU, "padded", padded, raising=False)
    with pytest.raises(OSError, match=r"^the disk is gone$"):
        run_epoch(ahead)
    assert not preparing()


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_epoch_leaves_no_thread(ahead, error):
    class Interrupted(Progress):
        def step(self, steps=1):
            assert preparing()
            raise error

    with pytest.raises(error):
        run_epoch(ahead, Interrupted(3, 0, disable=True))
    assert not preparing()


def preparing():
    return [thread for thread in threading.enumerate() if thread.name.startswith("made-ahead")]
