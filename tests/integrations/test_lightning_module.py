"""examples/integrations/lightning_module.py, with Lightning."""

import subprocess
import sys

import pytest
import torch

pytest.importorskip("lightning")

import lightning
from lightning.pytorch.trainer.connectors.data_connector import _get_distributed_sampler
from lightning.pytorch.trainer.states import RunningStage
from torch.utils.data import DataLoader

from csv_corpus import read_csv
from lightning_module import SpeechEmotionData, SpeechEmotionModule
from tones import save_encoder

SCRIPT = "examples/integrations/lightning_module.py"


def test_it_trains_and_tests(tones, encoder, tmp_path, run):
    last = run("lightning_module.py", tones, "--backbone", encoder, "--epochs", 2, "--out", tmp_path)
    assert last.startswith("UA ")
    assert last.endswith("(test speakers; chance 0.500)")
    loaded = SpeechEmotionModule.load_from_checkpoint(tmp_path / "best.ckpt")
    assert loaded.classifier.out_features == 2


def test_two_processes_take_the_step_of_one_with_their_batches(tones, tmp_path, run, pytestconfig):
    """Of eight utterances: gradients are the same, and so are the recalls."""
    dropouts = dict.fromkeys(("hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout"), 0.0)
    still = save_encoder(tmp_path / "encoder", 0, **dropouts)
    common = [tones, "--backbone", still, "--epochs", 2]  # parameters left out in one step stop the next
    alone = run("lightning_module.py", *common, "--batch-size", 8, "--out", tmp_path / "one")
    two = [*common, "--batch-size", 4, "--devices", 2, "--out", tmp_path / "two"]
    done = subprocess.run(
        [sys.executable, pytestconfig.rootpath / SCRIPT, *map(str, two)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert alone in done.stdout
    assert "Starting with 2 processes" in done.stderr

    averages = []
    for name in ("one", "two"):
        saved = torch.load(tmp_path / name / "best.ckpt", weights_only=False)
        averages.append([moments["exp_avg"] for moments in saved["optimizer_states"][0]["state"].values()])
    assert averages[0]
    torch.testing.assert_close(averages[1], averages[0], rtol=1e-4, atol=1e-7)


def test_it_trains_in_float32(half_encoder):
    assert {parameter.dtype for parameter in SpeechEmotionModule(str(half_encoder), 2).parameters()} == {torch.float32}


def test_an_utterance_alone_equals_itself_in_a_batch(tones, encoder):
    corpus = read_csv(tones)
    module, data = SpeechEmotionModule(str(encoder), 2).eval(), SpeechEmotionData(corpus, str(encoder), 8)
    with torch.no_grad():
        batch = module(*data.collate(corpus.train)).logits
        alone = torch.cat([module(*data.collate([utterance])).logits for utterance in corpus.train])
    torch.testing.assert_close(batch, alone)


def test_dropout_is_at_work_in_training_and_not_in_tests(tones, encoder, tmp_path):
    """transformers loads a model in eval mode, and Lightning would leave it so."""
    modes = []
    corpus = read_csv(tones)
    module, data = SpeechEmotionModule(str(encoder), 2), SpeechEmotionData(corpus, str(encoder), 8)
    module.encoder.register_forward_hook(lambda encoder, *_: modes.append(encoder.training))
    options = {"max_epochs": 1, "logger": False, "enable_checkpointing": False, "num_sanity_val_steps": 0}
    lightning.Trainer(default_root_dir=tmp_path, accelerator="cpu", **options).fit(module, data)
    assert modes == [True, False]


# ---- Lightning has no pooling, but shares out what is evaluated


def test_their_sampler_counts_utterances_twice():
    """Three utterances and two processes; but for `use_distributed_sampler=False`, as in the script."""
    options = {"shuffle": False, "overfit_batches": 0, "mode": RunningStage.TESTING, "num_replicas": 2}
    seen = [index for rank in (0, 1) for index in _get_distributed_sampler(DataLoader(range(3)), rank=rank, **options)]
    assert sorted(seen) == [0, 0, 1, 2]
    hits, labels = torch.tensor([1.0, 0.0, 1.0]), torch.tensor([0, 0, 1])  # recalls 1/2 and 1: UA 3/4
    recalls = [hits[seen][labels[seen] == label].mean() for label in (0, 1)]
    assert torch.stack(recalls).mean() == pytest.approx(5 / 6)
