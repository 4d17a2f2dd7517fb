"""Parsers of the corpora: quirks of their layouts, counts of complete copies, and what is said of broken ones."""

import csv
import json
import os
from collections import Counter
from pathlib import Path

import pytest

from recipe.data.corpora import corpora, read_corpus
from recipe.data.corpora.iemocap import read_iemocap
from recipe.data.corpora.ravdess import read_ravdess
from recipe.data.corpus import FOUR_CLASSES
from recipe.data.folds import session_folds, speaker_folds
from recipe.data.speaker_groups import speaker_groups
from recipe.errors import RecipeError
from trees import iemocap_block, touch, write_iemocap, write_iemocap_audio, write_iemocap_labels

READERS = sorted(corpora().keys() - {"manifest"})


def counts(utterances):
    return Counter(utterance.label for utterance in utterances)


# ---- IEMOCAP


@pytest.fixture
def quirky(tmp_path):
    """Every trap of the release in a few turns."""
    labels = {
        "Ses01F_impro01_F000": "neu",
        "Ses01F_impro01_F001": "xxx",
        "Ses01F_impro01_F002": "fru",
        "Ses01F_impro01_M000": "ang",  # spoken by the man, in the dialogue named after the woman
        "Ses01F_impro01_M001": "exc",
        "Ses03M_impro05a_F000": "hap",
        "Ses03M_impro08b_M000": "sad",
        "Ses05M_script01_1b_F021": "sad",
    }
    write_iemocap(tmp_path, labels)
    overlapping = iemocap_block("Ses01M_script01_1_F000", "neu", 3.1, 9.0) + iemocap_block(
        "Ses01M_script01_1_M000", "neu", 0.5, 4.2
    )
    without_audio = iemocap_block("Ses01M_script01_1_M001", "sad")
    labels = write_iemocap_labels(tmp_path, "Ses01M_script01_1", overlapping + without_audio)
    labels.write_bytes(labels.read_bytes() + "C-E4:\tNeutral;\t(na\u00efve)\n".encode("latin-1"))
    write_iemocap_audio(tmp_path, ["Ses01M_script01_1_F000", "Ses01M_script01_1_M000"])

    # files that hold readable turns and must not be read: with audio beside them, reading them would show
    stray = ["Ses01F_impro01_F097", "Ses01F_impro01_F098", "Ses01F_impro01_F099"]
    evaluation = tmp_path / "Session1" / "dialog" / "EmoEvaluation"
    (evaluation / "._Ses01F_impro01.txt").write_bytes(
        b"\x00\x05\x16\x07\xff\xfe\n" + iemocap_block(stray[0], "neu").encode()
    )
    for turn, folder in zip(stray[1:], ["Attribute", "Categorical"], strict=True):
        (evaluation / folder).mkdir()
        (evaluation / folder / "Ses01F_impro01_e2.txt").write_text(
            f"Ses01F_impro01_F000 :act 4; :val 3; :dom 2;\n{iemocap_block(turn, 'neu')}"
        )
    write_iemocap_audio(tmp_path, stray)
    touch(tmp_path / "Session1" / "sentences" / "wav" / "Ses01F_impro01", ["._Ses01F_impro01_F000.wav"])
    return tmp_path


def test_iemocap_is_read_whatever_the_quirks_of_its_release(quirky):
    corpus = read_iemocap(quirky)
    assert [(u.id, u.label, u.speaker, u.session) for u in corpus.utterances] == [
        ("Ses01F_impro01_F000", "neutral", "Ses01F", "Session1"),
        ("Ses01F_impro01_M000", "angry", "Ses01M", "Session1"),
        ("Ses01F_impro01_M001", "happy", "Ses01M", "Session1"),
        ("Ses01M_script01_1_F000", "neutral", "Ses01F", "Session1"),
        ("Ses01M_script01_1_M000", "neutral", "Ses01M", "Session1"),
        ("Ses03M_impro05a_F000", "happy", "Ses03F", "Session3"),
        ("Ses03M_impro08b_M000", "sad", "Ses03M", "Session3"),
        ("Ses05M_script01_1b_F021", "sad", "Ses05F", "Session5"),
    ]
    assert corpus.classes == ("angry", "happy", "neutral", "sad")
    last = corpus.utterances[-1].path
    assert last == quirky / "Session5/sentences/wav/Ses05M_script01_1b/Ses05M_script01_1b_F021.wav"


def test_iemocap_counts_labels_without_audio(quirky):
    [skipped] = read_iemocap(quirky).skipped
    assert skipped.path.name == "Ses01M_script01_1_M001.wav"
    assert skipped.reason == "labelled, but the file is missing"


def test_iemocap_tells_what_a_partial_copy_lacks(quirky):
    notes = read_iemocap(quirky).notes
    assert [note.split(":")[0] for note in notes[:2]] == ["Session2 is missing", "Session4 is missing"]
    assert notes[2] == (
        "8 of the 5531 utterances of a complete IEMOCAP were found: "
        "angry 1 of 1103, happy 2 of 1636, neutral 3 of 1708, sad 2 of 1084."
    )


def test_iemocap_counts_lines_that_it_cannot_read_and_turns_labelled_twice(tmp_path):
    write_iemocap(tmp_path, {"Ses02F_impro01_F000": "neu", "Ses02F_impro01_F001": "sad"})
    path = write_iemocap_labels(tmp_path, "Ses02F_impro01 copy", iemocap_block("Ses02F_impro01_F000", "ang"))
    with path.open("a") as file:
        file.write("[6.29 - 8.23]\tSes02F_impro\n")
    corpus = read_iemocap(tmp_path)
    assert len(corpus.utterances) == 2
    assert sorted(skipped.reason for skipped in corpus.skipped) == [
        "labels Ses02F_impro01_F000 once more; the first label is kept",
        "line 9 is not a labelled turn",
    ]


def test_iemocap_without_any_audio_is_refused(tmp_path):
    write_iemocap_labels(tmp_path, "Ses01F_impro01", iemocap_block("Ses01F_impro01_F000", "neu"))
    with pytest.raises(RecipeError, match=r"none of the 1 labelled turns has audio .*_F000\.wav is missing.*unpack"):
        read_iemocap(tmp_path)


def test_iemocap_without_labelled_turns_is_refused(tmp_path):
    write_iemocap_labels(tmp_path, "Ses01F_impro01", iemocap_block("Ses01F_impro01_F000", "fru"))
    with pytest.raises(RecipeError, match=r"no turn is labelled ang, exc, hap, neu, sad; unpack"):
        read_iemocap(tmp_path)


# per session: train, then neutral, happy, angry, sad of the man (validation) and of the woman (test)
PUBLISHED_FOLDS = [
    (4446, (213, 146, 82, 116), (171, 132, 147, 78)),
    (4508, (227, 161, 70, 84), (135, 166, 67, 113)),
    (4380, (190, 158, 148, 133), (130, 128, 92, 172)),
    (4500, (182, 118, 122, 81), (76, 185, 205, 62)),
    (4290, (163, 283, 92, 113), (221, 159, 78, 132)),
]


def test_iemocap_folds_are_the_published_ones(data_root, tmp_path):
    labels = {}
    for session in range(1, 6):
        path = data_root / "iemocap_labels" / "s3prl_meta_data" / f"Session{session}" / "test_meta_data.json"
        for item in json.loads(path.read_text())["meta_data"]:
            labels[Path(item["path"]).stem] = item["label"]
    write_iemocap(tmp_path, labels)
    corpus = read_iemocap(tmp_path)
    assert len(corpus.utterances) == 5531
    assert corpus.notes == []
    assert corpus.skipped == []
    folds = session_folds(corpus)
    order = ("neutral", "happy", "angry", "sad")
    assert [
        (
            len(fold.train),
            tuple(counts(fold.validation)[label] for label in order),
            tuple(counts(fold.test)[label] for label in order),
        )
        for fold in folds
    ] == PUBLISHED_FOLDS
    assert [{u.speaker for u in fold.test} for fold in folds] == [{f"Ses0{n}F"} for n in range(1, 6)]
    assert [{u.speaker for u in fold.validation} for fold in folds] == [{f"Ses0{n}M"} for n in range(1, 6)]


# ---- RAVDESS


def test_ravdess_is_complete_in_its_published_folds(data_root):
    corpus = read_corpus("ravdess", data_root / "ravdess" / "Audio_Speech_Actors_01-24_16k_flac")
    assert len(corpus.utterances) == 1439
    assert counts(corpus.utterances) == dict.fromkeys(corpus.classes, 192) | {"neutral": 96, "happy": 191}
    [skipped] = corpus.skipped
    assert skipped.path.stem == "03-01-03-01-02-02-07"
    assert corpus.notes == []
    manifest = {row["id"]: row for row in csv.DictReader((data_root / "ravdess" / "manifest.csv").open())}
    assert all(u.speaker == manifest[u.id]["actor"] for u in corpus.utterances)
    adjectives = {"disgust": "disgusted", "surprise": "surprised", "fear": "fearful"}
    assert all(u.label == adjectives.get(e := manifest[u.id]["emotion"], e) for u in corpus.utterances)

    groups = speaker_groups(corpus)
    for number, group in enumerate(groups, start=1):
        assert group == sorted({r["actor"] for r in manifest.values() if r["emobox_test_fold"] == str(number)})
    assert [len(fold.test) for fold in speaker_folds(corpus)] == [240, 240, 240, 239, 240, 240]


def test_ravdess_shared_classes_leave_calm_out(data_root):
    corpus = read_corpus("ravdess", data_root / "ravdess" / "Audio_Speech_Actors_01-24_16k_flac", "four")
    assert corpus.classes == FOUR_CLASSES
    assert counts(corpus.utterances) == {"angry": 192, "happy": 191, "neutral": 96, "sad": 192}


def test_ravdess_skips_songs_and_second_formats(tmp_path):
    touch(
        tmp_path / "Actor_02",
        [
            "03-01-05-01-01-01-02.wav",
            "03-01-05-01-01-01-02.flac",
            "03-02-05-01-01-01-02.wav",
            "._03-01-05-01-01-01-02.wav",
        ],
    )
    corpus = read_ravdess(tmp_path)
    assert [u.path.name for u in corpus.utterances] == ["03-01-05-01-01-01-02.flac"]
    assert [(s.path.name, s.reason) for s in corpus.skipped] == [
        ("03-01-05-01-01-01-02.wav", "the same utterance in another file is used"),
        ("03-02-05-01-01-01-02.wav", "not named like speech of RAVDESS"),
    ]
    assert corpus.notes[0].startswith(
        "1 of the 1439 utterances of a complete RAVDESS were found: angry 1 of 192, calm 0 of 192"
    )


# ---- EmoDB


@pytest.mark.parametrize("below", ["", "wav"])
def test_emodb_has_four_complete_classes_in_speaker_folds(data_root, below):
    corpus = read_corpus("emodb", data_root / "emodb" / below, "four")
    assert counts(corpus.utterances) == {"angry": 127, "happy": 71, "neutral": 79, "sad": 62}
    assert corpus.notes == []
    assert {u.path.parent.name for u in corpus.utterances} == {"wav"}
    groups = speaker_groups(corpus)
    manifest = list(csv.DictReader((data_root / "emodb" / "manifest.csv").open()))
    sexes = {row["speaker"]: row["sex"] for row in manifest}
    assert [[sexes[speaker] for speaker in group] for group in groups] == [["male"], ["female"]] * 5
    assert sum(len(fold.test) for fold in speaker_folds(corpus)) == 339


def test_emodb_own_classes_from_the_originals_only(data_root):
    corpus = read_corpus("emodb", data_root / "emodb", "own")
    nouns = {"anger": "angry", "boredom": "bored", "disgust": "disgusted", "fear": "fearful"}
    nouns |= {"happiness": "happy", "neutral": "neutral", "sadness": "sad"}
    originals = {
        row["id"]: nouns[row["emotion"]]
        for row in csv.DictReader((data_root / "emodb" / "manifest.csv").open())
        if row["is_original"] == "1"
    }
    assert {u.id: u.label for u in corpus.utterances} == originals
    assert corpus.notes == [
        "362 of the 535 utterances of a complete EmoDB were found: bored 9 of 81, disgusted 9 of 46, fearful 5 of 69."
    ]
    with pytest.raises(RecipeError, match=r"or use --classes four, which all sides have\. 362 of the 535"):
        speaker_folds(corpus)
    corpus.utterances = [u for u in corpus.utterances if (u.label, u.speaker) != ("sad", "03")]
    with pytest.raises(RecipeError, match="or choose other classes"):  # the four are not on every side either
        speaker_folds(corpus)


# ---- CREMA-D


@pytest.fixture
def crema_d_names(data_root, tmp_path):
    with (data_root / "crema_d" / "AudioWAV_lfs_manifest.csv").open() as file:
        touch(tmp_path / "AudioWAV", (row["file"] for row in csv.DictReader(file)))
    return tmp_path


def test_crema_d_is_complete_in_balanced_groups(crema_d_names, data_root):
    corpus = read_corpus("crema-d", crema_d_names)
    assert len(corpus.utterances) == 7435
    assert counts(corpus.utterances) == {
        "angry": 1270,
        "disgusted": 1270,
        "fearful": 1270,
        "happy": 1270,
        "neutral": 1086,
        "sad": 1269,
    }
    assert corpus.notes == []
    assert {s.path.stem: s.reason for s in corpus.skipped} == {
        "1006_TIE_HAP_XX": "the same bytes as 1006_TIE_NEU_XX, under another label",
        "1006_TIE_NEU_XX": "the same bytes as 1006_TIE_HAP_XX, under another label",
        "1013_WSI_DIS_XX": "the same bytes as 1013_WSI_SAD_XX, under another label",
        "1013_WSI_SAD_XX": "the same bytes as 1013_WSI_DIS_XX, under another label",
        "1017_IWW_ANG_XX": "the same bytes as 1017_IWW_FEA_XX, under another label",
        "1017_IWW_FEA_XX": "the same bytes as 1017_IWW_ANG_XX, under another label",
        "1076_MTI_SAD_XX": "holds no speech",
    }
    groups = speaker_groups(corpus)
    assert sorted(speaker for group in groups for speaker in group) == [str(actor) for actor in range(1001, 1092)]
    with (data_root / "crema_d" / "VideoDemographics.csv").open() as file:
        women = {row["ActorID"] for row in csv.DictReader(file) if row["Sex"] == "Female"}
    assert [(len(group), len(women & set(group))) for group in groups] == [(19, 9), (18, 9), (18, 9), (18, 8), (18, 8)]
    assert sum(len(fold.test) for fold in speaker_folds(corpus)) == 7435


def test_crema_d_leaves_other_classes_out(crema_d_names):
    assert len(read_corpus("crema-d", crema_d_names / "AudioWAV", "four").utterances) == 1270 + 1270 + 1086 + 1269


def test_crema_d_with_too_few_speakers_for_folds_is_refused(tmp_path):
    touch(tmp_path / "AudioWAV", ["1001_DFA_ANG_XX.wav", "1002_DFA_ANG_XX.wav"])
    with pytest.raises(
        RecipeError, match=r"the 2 speakers found \(1001, 1002\) are in 2 of the 5 speaker groups.*Complete"
    ):
        speaker_groups(read_corpus("crema-d", tmp_path))


# ---- what is not the corpus


@pytest.fixture
def trees(tmp_path):
    """A complete enough root for each reader."""
    roots = {name: tmp_path / "downloads" / name for name in READERS}
    write_iemocap(roots["iemocap"], {"Ses01F_impro01_F000": "neu"})
    touch(roots["crema-d"] / "AudioWAV", ["1001_DFA_ANG_XX.wav"])
    touch(roots["ravdess"] / "Actor_01", ["03-01-05-01-01-01-01.wav"])
    touch(roots["emodb"] / "wav", ["03a01Fa.wav"])
    return roots


@pytest.mark.parametrize("name", READERS)
class TestNotTheCorpus:
    def test_a_root_that_is_missing_is_refused(self, name, tmp_path):
        with pytest.raises(RecipeError, match=r"nowhere does not exist; give the directory of \w+.*, which holds"):
            read_corpus(name, tmp_path / "nowhere")

    def test_a_file_for_a_root_is_refused(self, name, tmp_path):
        touch(tmp_path, ["corpus.zip"])
        with pytest.raises(RecipeError, match=r"corpus\.zip is a file; give the directory of"):
            read_corpus(name, tmp_path / "corpus.zip")

    def test_an_empty_root_is_refused(self, name, tmp_path):
        with pytest.raises(RecipeError, match=f"{tmp_path.name} is empty; give the directory of"):
            read_corpus(name, tmp_path)

    def test_another_folder_is_refused_with_what_it_holds(self, name, tmp_path):
        touch(tmp_path, ["a.txt", "b.txt", "c.txt", "d.txt", "e.txt", "f.txt"])
        with pytest.raises(
            RecipeError, match=r"is not .*: expected .*, found a\.txt, b\.txt, c\.txt, d\.txt and 2 more"
        ):
            read_corpus(name, tmp_path)

    @pytest.mark.parametrize("step", [1, -1])
    def test_a_root_one_level_off_is_told_the_right_one(self, name, step, trees):
        root = trees[name]
        given = root.parent if step > 0 else next(path for path in sorted(root.iterdir()) if path.is_dir())
        if name in ("crema-d", "emodb") and step < 0:
            assert len(read_corpus(name, given).utterances) == 1  # these two may be given either way
            return
        with pytest.raises(RecipeError, match=rf"Did you mean {root}\?") as caught:
            read_corpus(name, given)
        assert "\n" not in str(caught.value)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="permissions do not bind the superuser")
def test_a_directory_that_may_not_be_read_is_refused(tmp_path):
    tmp_path.chmod(0)
    try:
        with pytest.raises(RecipeError, match="cannot be read"):
            read_iemocap(tmp_path)
    finally:
        tmp_path.chmod(0o700)
