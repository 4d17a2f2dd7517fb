"""examples/integrations/csv_corpus.py, which the scripts beside it share."""

import csv

import pytest
import torch

from csv_corpus import SAMPLE_RATE, read_csv, read_waveform, unweighted_accuracy
from tones import write_csv


def test_no_speaker_is_on_two_sides(tones):
    corpus = read_csv(tones)
    assert corpus.classes == ["high", "low"]
    speakers = [{utterance.path.name.split("-")[0] for utterance in side} for side in corpus[1:]]
    assert speakers == [{"cid", "dot"}, {"ben"}, {"ann"}]
    assert sum(map(len, corpus[1:])) == 16


def test_waveforms_are_of_one_rate(tones):
    lengths = [len(read_waveform(utterance.path)) / SAMPLE_RATE for utterance in read_csv(tones).train]
    assert all(0.19 < seconds < 0.41 for seconds in lengths)


def test_ua_counts_each_class_that_is_there_once():
    labels = torch.tensor([0, 0, 0, 2])
    assert unweighted_accuracy(torch.tensor([0, 0, 1, 2]), labels) == pytest.approx((2 / 3 + 1) / 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(lambda rows: [{**row, "speaker": "ann"} for row in rows], "needs 3 speakers", id="one speaker"),
        pytest.param(lambda rows: [{"path": row["path"]} for row in rows], "needs the columns path", id="column"),
    ],
)
def test_what_cannot_be_split_ends_in_one_line(tones, tmp_path, change, message):
    rows = list(csv.DictReader(tones.open()))
    with pytest.raises(SystemExit, match=message):
        read_csv(write_csv(tmp_path / "bad.csv", change(rows)))
