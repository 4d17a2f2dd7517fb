"""Steps that visit every utterance once, shares that fit the budget, and little padding on IEMOCAP's lengths."""

import math
import operator
import threading
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recipe.data.corpus import Utterance
from recipe.errors import RecipeError
from recipe.features.backbones.dvector import DVectorBackbone
from recipe.features.backbones.wav2vec2 import Wav2Vec2Backbone
from recipe.features.backbones.whisper import WhisperBackbone
from recipe.features.batches import Batch, UtteranceFeatures, check_budget, training_steps, within_budget
from recipe.settings import Settings

BUDGET = Settings.frame_budget

# of a size that is drawn first: lists alone are mostly short
lengths_of = st.integers(1, 300).flatmap(lambda size: st.lists(st.integers(1, 1707), min_size=size, max_size=size))
seeds = st.integers(0, 2**31)
epochs = st.integers(1, 1000)
batch_sizes = st.integers(1, 40)


def iemocap_lengths(count=5531, seed=0):
    """Steps of the front end, 50 a second, as the four classes of IEMOCAP are long."""
    seconds = np.exp(np.log(3.58) + 0.692 * np.random.default_rng(seed).standard_normal(count)).clip(0.58, 34.14)
    return (50 * seconds).astype(int).tolist()


def padded(batches, lengths):
    return sum(len(batch) * max(lengths[index] for index in batch) for batch in batches)


# ---- steps


@settings(max_examples=50)
@given(lengths_of, batch_sizes, seeds, epochs)
def test_every_utterance_is_in_exactly_one_step(lengths, batch_size, seed, epoch):
    steps = training_steps(lengths, batch_size, seed, epoch)
    assert sorted(index for step in steps for index in step) == list(range(len(lengths)))


@settings(max_examples=50)
@given(lengths_of, batch_sizes, seeds, epochs)
def test_all_steps_are_full_but_for_one_with_the_rest(lengths, batch_size, seed, epoch):
    sizes = Counter(map(len, training_steps(lengths, batch_size, seed, epoch)))
    full, rest = divmod(len(lengths), batch_size)
    assert sizes == Counter({batch_size: full}) + Counter([rest] if rest else [])


@settings(max_examples=50)
@given(lengths_of, batch_sizes, seeds, epochs)
def test_the_same_arguments_give_the_same_steps(lengths, batch_size, seed, epoch):
    steps = training_steps(lengths, batch_size, seed, epoch)
    torch.rand(7)  # whatever else was drawn meanwhile
    assert training_steps(lengths, batch_size, seed, epoch) == steps


@settings(max_examples=50)
@given(seeds, epochs)
def test_another_epoch_or_seed_gives_others(seed, epoch):
    lengths = iemocap_lengths(200)
    steps = training_steps(lengths, 16, seed, epoch)
    assert training_steps(lengths, 16, seed, epoch + 1) != steps
    assert training_steps(lengths, 16, seed + 1, epoch) != steps


def test_company_changes_from_epoch_to_epoch():
    """More than the order of the steps: an utterance's gradient is not always averaged with the same ones'."""
    lengths = iemocap_lengths()

    def neighbours(epoch):
        return {frozenset(pair) for step in training_steps(lengths, 16, 0, epoch) for pair in pairwise(step)}

    assert len(neighbours(1) & neighbours(2)) < 0.1 * len(neighbours(1))


def test_long_and_short_steps_come_in_no_order():
    lengths = iemocap_lengths()
    steps = training_steps(lengths, 16, 0, 1)
    means = [np.mean([lengths[index] for index in step]) for step in steps]
    assert abs(np.corrcoef(means[1:], means[:-1])[0, 1]) < 0.15


# ---- within_budget


def shares(indices, lengths, budget, processes):
    return [within_budget(indices, lengths, budget, process, processes) for process in range(processes)]


@settings(max_examples=50)
@given(lengths_of, st.integers(1, 9), st.integers(1, 4000), st.data())
def test_processes_share_out_a_step_exactly(lengths, processes, budget, data):
    step = data.draw(st.lists(st.sampled_from(range(len(lengths))), unique=True))
    found = [[index for part in share for index in part] for share in shares(step, lengths, budget, processes)]
    assert sorted(index for share in found for index in share) == sorted(step)
    assert max(map(len, found)) - min(map(len, found)) <= 1
    assert all(part for share in shares(step, lengths, budget, processes) for part in share)


@settings(max_examples=50)
@given(lengths_of, st.integers(1, 9), st.integers(0, 4000))
def test_batches_fit_the_budget_where_every_utterance_does(lengths, processes, spare):
    budget = max(lengths) + spare
    for share in shares(range(len(lengths)), lengths, budget, processes):
        for part in share:
            assert len(part) * max(lengths[index] for index in part) <= budget


def test_a_batch_takes_as_many_as_fit():
    assert within_budget([4, 3, 2, 1, 0], [3, 3, 4, 4, 5], 8) == [[0, 1], [2, 3], [4]]


@settings(max_examples=50)
@given(lengths_of, st.integers(1, 4000))
def test_an_utterance_beyond_the_budget_is_alone(lengths, budget):
    for batch in within_budget(range(len(lengths)), lengths, budget):
        assert len(batch) == 1 or len(batch) * max(lengths[index] for index in batch) <= budget


@settings(max_examples=50)
@given(lengths_of, st.integers(1, 9))
def test_a_large_budget_takes_a_share_at_once(lengths, processes):
    found = shares(range(len(lengths)), lengths, sum(lengths) * len(lengths), processes)
    assert [len(share) for share in found] == [1] * min(processes, len(lengths)) + [0] * (processes - len(lengths))


@settings(max_examples=50)
@given(st.permutations(range(40)))
def test_batches_do_not_depend_on_the_order_of_a_step(indices):
    lengths = [1 + index // 3 for index in range(40)]  # with equals
    assert shares(indices, lengths, 30, 3) == shares(range(40), lengths, 30, 3)


@pytest.mark.parametrize("steps", ["training", "prediction"])
def test_processes_have_the_same_work(steps):
    lengths = iemocap_lengths()
    taken = training_steps(lengths, 16, 0, 1) if steps == "training" else [range(len(lengths))]
    frames = [[padded(share, lengths) for share in shares(step, lengths, BUDGET, 4)] for step in taken]
    assert sum(map(max, frames)) < 1.05 * sum(map(sum, frames)) / 4


# ---- IEMOCAP


def test_the_stand_in_is_as_long_as_iemocap():
    seconds = np.array(iemocap_lengths(100_000)) / 50
    assert np.mean(seconds) == pytest.approx(4.55, rel=0.03)
    assert np.percentile(seconds, [5, 25, 50, 75, 95]) == pytest.approx([1.39, 2.32, 3.58, 5.77, 11.06], rel=0.2)
    assert seconds.max() == 34.14


@pytest.mark.parametrize("epoch", [1, 2])
def test_padding_on_iemocap_is_far_below_that_of_a_random_order(epoch):
    lengths = iemocap_lengths()
    real = sum(lengths)
    order = np.random.default_rng(epoch).permutation(len(lengths)).tolist()
    waste = padded(training_steps(lengths, 16, 0, epoch), lengths) / real - 1
    assert padded([order[i : i + 16] for i in range(0, len(order), 16)], lengths) / real - 1 > 1.3
    assert waste < 0.1


def test_a_prediction_on_iemocap_is_hardly_padded():
    lengths = iemocap_lengths()
    assert padded(within_budget(range(len(lengths)), lengths, BUDGET), lengths) < 1.02 * sum(lengths)


@pytest.mark.parametrize("kind", [Wav2Vec2Backbone, WhisperBackbone, DVectorBackbone])
def test_the_longest_turn_fits_the_default_budget(kind):
    rate = 100 if kind is DVectorBackbone else 50  # steps of the front end a second
    longest = Utterance("longest", Path("longest.wav"), "happy", "1001")
    check_budget([longest], {"longest": torch.zeros(math.ceil(34.14 * rate), 1)}, kind.settings.frame_budget)


def test_an_utterance_beyond_the_budget_is_named():
    features = {id: torch.zeros(length, 1) for id, length in {"a": 7, "b": 9, "c": 8}.items()}
    utterances = [Utterance(id, Path(f"{id}.wav"), "happy", "1001") for id in features]
    check_budget(utterances, features, 9)
    message = r"^--frame_budget 8: b\.wav alone has 9 frames; raise the budget, or leave the file out\.$"
    with pytest.raises(RecipeError, match=message):
        check_budget(utterances, features, 8)


# ---- batches


@pytest.fixture
def kept():
    """Features as the cache keeps them."""
    features = {str(i): torch.randn(length, 3).half() for i, length in enumerate([2, 5, 1, 4, 4, 3, 7])}
    utterances = [Utterance(id, Path(f"{id}.wav"), "sad" if id in "135" else "happy", "1001") for id in features]
    return UtteranceFeatures(utterances, features, ("happy", "sad"))


PASSES = [[0, 1], [6], [2, 3, 5], [4, 0]]


def test_batches_are_those_of_each_pass(kept):
    cpu = torch.device("cpu")
    found = list(kept.batches(PASSES, cpu))
    assert len(found) == len(PASSES)
    for batch, indices in zip(found, PASSES, strict=True):
        assert all(map(torch.equal, batch, kept.batch(indices, cpu)))


def test_a_cpu_pins_nothing_and_starts_no_thread(kept, monkeypatch):
    monkeypatch.setattr(torch.Tensor, "pin_memory", pytest.fail)
    before = threading.active_count()
    for _ in kept.batches(PASSES, torch.device("cpu")):
        assert threading.active_count() == before


def test_a_gpu_finds_pinned_batches_in_half_precision(kept, monkeypatch):
    """Padded and pinned by the thread that runs ahead, copied by the one that launches the step."""
    pinned, moved = [], []

    def pin(batch):
        pinned.append((threading.current_thread().name, batch))
        return batch

    def to(batch, device):
        moved.append((threading.current_thread(), batch, device))
        return batch

    monkeypatch.setattr(Batch, "pinned", pin)
    monkeypatch.setattr(Batch, "to", to)
    device = torch.device("cuda", 0)
    found = list(kept.batches(PASSES, device))
    assert [batch for _, batch in pinned] == [batch for _, batch, _ in moved] == found
    assert all(name.startswith("made-ahead") for name, _ in pinned)
    assert {(thread, where) for thread, _, where in moved} == {(threading.current_thread(), device)}
    for batch, indices in zip(found, PASSES, strict=True):
        assert batch.features.dtype == torch.float16
        expected = kept.batch(indices, torch.device("cpu"))  # not moved, and so not widened here
        assert all(map(torch.equal, batch, expected))


def test_half_precision_is_widened_behind_the_bus(kept):
    """The same values as of features that are widened first, and padded then."""
    found = kept.batch([0, 6], torch.device("cpu")).features
    assert found.dtype == torch.float32
    expected = torch.nn.utils.rnn.pad_sequence([kept.features[i].float() for i in (0, 6)], batch_first=True)
    assert torch.equal(found, expected)


# ---- speeds


def test_each_epoch_draws_a_speed_for_each_utterance():
    speeds = (1.0, 0.9, 1.1)
    utterances = [Utterance(str(i), Path(f"{i}.wav"), "sad", "1001") for i in range(300)]
    own = {utterance.id: torch.full((10, 1), 1.0) for utterance in utterances}
    others = {(u.id, speed): torch.full((round(10 / speed), 1), speed) for u in utterances for speed in speeds[1:]}
    data = UtteranceFeatures(utterances, {**own, **others}, ("sad",), speeds)

    def heard(data):
        assert data.lengths == [len(steps) for steps in data.features]
        return [round(float(steps[0, 0]), 1) for steps in data.features]

    first, second = (heard(data.drawn(3, epoch)) for epoch in (1, 2))
    assert heard(data.drawn(3, 1)) == first  # as after a restart, and in every process
    assert sum(map(operator.eq, first, second)) == pytest.approx(100, abs=30)
    assert heard(data.drawn(4, 1)) != first
    for found in (first, second):
        assert [found.count(speed) for speed in speeds] == pytest.approx([100] * 3, abs=30)
    assert heard(data) == [1.0] * 300  # drawing leaves it as it was


def test_without_speeds_every_epoch_is_the_utterances_as_they_are(kept):
    assert all(map(operator.is_, kept.drawn(0, 1).features, kept.features))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device, and torch finds none")
def test_batches_on_a_gpu_are_those_of_a_cpu(kept):
    batches = list(kept.batches(PASSES, torch.device("cuda")))
    for batch, indices in zip(batches, PASSES, strict=True):
        assert batch.features.is_cuda
        on_host = Batch(*(tensor.cpu() for tensor in batch))
        assert all(map(torch.equal, on_host, kept.batch(indices, torch.device("cpu"))))
        assert all(tensor.is_pinned() for tensor in kept.padded(indices).pinned())


def test_a_batch_is_padded_masked_and_labelled():
    features = {id: torch.randn(length, 3).half() for id, length in {"a": 2, "b": 5, "c": 1}.items()}
    labels = {"a": "sad", "b": "happy", "c": "sad"}
    data = UtteranceFeatures(
        [Utterance(id, Path(f"{id}.wav"), labels[id], "1001") for id in "abc"], features, ("happy", "neutral", "sad")
    )
    assert (len(data), data.lengths) == (3, [2, 5, 1])
    batch, mask, classes = data.batch([2, 0, 1], torch.device("cpu"))
    assert batch.dtype == torch.float32
    assert mask.sum(dim=1).tolist() == [1, 2, 5]
    assert classes.tolist() == [2, 2, 0]
    for row, real, id in zip(batch, mask, "cab", strict=True):
        assert torch.equal(row[real], features[id].float())
        assert not row[~real].any()
