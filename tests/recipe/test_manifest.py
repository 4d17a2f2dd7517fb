"""Corpora listed in a CSV file: what is read, which defaults fill in, and what is said of each mistake."""

import contextlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recipe.data.corpora import read_corpus
from recipe.data.corpora.manifest import read_manifest
from recipe.data.corpus import FOUR_CLASSES
from recipe.data.folds import manifest_folds
from recipe.errors import RecipeError
from trees import touch

ROWS = """\
path,label,speaker
wav/b.wav,sad,s2
wav/a.flac,happy,s1
"""


@pytest.fixture
def write(tmp_path):
    """Write a manifest beside the audio files wav/a.flac and wav/b.wav."""
    touch(tmp_path / "wav", ["a.flac", "b.wav"])

    def write(content):
        path = tmp_path / "my speech.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def refused(path, match, classes=None):
    with pytest.raises(RecipeError, match=match) as caught:
        read_manifest(path, classes)
    assert "\n" not in str(caught.value)
    assert path.name in str(caught.value)


# ---- what is read


def test_required_columns_are_enough(write, tmp_path):
    corpus = read_manifest(write(ROWS))
    assert corpus.name == "my speech"
    assert corpus.classes == ("happy", "sad")
    assert [(u.id, u.path, u.label, u.speaker) for u in corpus.utterances] == [
        ("wav/a", tmp_path / "wav" / "a.flac", "happy", "s1"),
        ("wav/b", tmp_path / "wav" / "b.wav", "sad", "s2"),
    ]
    assert {(u.session, u.fold, u.split, u.gender) for u in corpus.utterances} == {("", "", "", "")}
    assert corpus.skipped == []
    assert corpus.notes == []


def test_optional_columns_in_any_order_beside_unknown_ones(write):
    corpus = read_manifest(
        write(
            "text,gender,speaker,session,label,fold,path,id\n"
            '"well, no",woman,s1,evening,happy,2,wav/a.flac,first\n'
            "yes,man,s2,morning,sad,1,wav/b.wav,\n"
        )
    )
    assert [(u.id, u.speaker, u.session, u.fold, u.gender) for u in corpus.utterances] == [
        ("first", "s1", "evening", "2", "woman"),
        ("wav/b", "s2", "morning", "1", "man"),  # an empty id takes the default
    ]


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbf" + ROWS.encode(),
        ROWS.replace("\n", "\r\n"),
        ROWS.replace(",", " , "),
        ROWS.replace("\n", "\n\n") + "\n",
        ROWS.rstrip("\n"),
        ROWS.replace("wav/b.wav", '"wav/b.wav"'),
    ],
    ids=["BOM", "CRLF", "blanks", "empty lines", "no last newline", "quotes"],
)
def test_what_spreadsheets_and_hands_write_is_read(write, content):
    expected = read_manifest(write(ROWS))
    assert read_manifest(write(content)) == expected


def test_absolute_paths_stay_what_they_are(write, tmp_path):
    path = write(ROWS.replace("wav/a.flac", str(tmp_path / "wav" / "a.flac")))
    assert tmp_path / "wav" / "a.flac" in [u.path for u in read_manifest(path).utterances]


NFC, NFD = "M\u00fcller", "Mu\u0308ller"  # the same name, as two systems write it


@pytest.mark.parametrize(
    ("on_disk", "written"),
    [
        ("wav/c.wav", "wav\\c.wav"),
        ("deep/er/c.wav", "deep\\er\\c.wav"),
        (f"{NFC}.wav", f"{NFD}.wav"),
        (f"{NFD}.wav", f"{NFC}.wav"),
        (f"{NFD}/{NFC}.wav", f"{NFD}/{NFC}.wav"),
        (f"{NFD}/c.wav", f"{NFC}\\c.wav"),
        ("a\\b.wav", "a\\b.wav"),
    ],
)
def test_files_are_found_as_other_systems_write_their_names(write, tmp_path, on_disk, written):
    path = tmp_path / on_disk
    touch(path.parent, [path.name])
    corpus = read_manifest(write(f"{ROWS}{written},sad,s3\n"))
    assert corpus.skipped == []
    assert path in [utterance.path for utterance in corpus.utterances]


def test_the_home_folder_may_be_a_tilde(write, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    touch(tmp_path / "speech", ["c.wav"])
    corpus = read_manifest(write(f"{ROWS}~/speech/c.wav,sad,s3\n"))
    assert corpus.skipped == []


def test_a_speaker_in_two_unicode_forms_is_one(write):
    corpus = read_manifest(write(f"path,label,speaker\nwav/a.flac,happy,{NFC}\nwav/b.wav,sad,{NFD}\n"))
    assert {utterance.speaker for utterance in corpus.utterances} == {NFC}


def test_a_file_listed_in_two_forms_of_its_name_is_listed_twice(write, tmp_path):
    touch(tmp_path, [f"{NFC}.wav"])
    refused(write(f"{ROWS}{NFC}.wav,sad,s1\n{NFD}.wav,sad,s1\n"), match="line 5: repeats line 4")
    refused(write(f"{ROWS}wav\\a.flac,happy,s1\n"), match="line 4: repeats line 3")


# lines of a file that nobody would write on purpose, and some that somebody would
CELLS = st.one_of(
    st.sampled_from(["path", "label", "speaker", "wav/a.flac", "wav/b.wav", "happy", "sad", "s1", "s2", "", "~", "\0"]),
    st.text(max_size=6),
    st.text(alphabet='",;\t\n\r \\', max_size=4),
)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(CELLS, max_size=5), max_size=6), st.booleans(), st.binary(max_size=3))
def test_any_file_is_read_or_refused_in_one_line(write, rows, with_header, noise):
    lines = [["path", "label", "speaker"]] * with_header + rows
    content = "\n".join(",".join(cells) for cells in lines).encode("utf-8", errors="surrogatepass") + noise
    path = write(content)
    with contextlib.suppress(RecipeError):
        corpus = read_manifest(path)
        assert corpus.utterances


@pytest.mark.parametrize(
    ("written", "side"),
    [
        ("train", "train"),
        ("validation", "validation"),
        ("val", "validation"),
        ("valid", "validation"),
        ("dev", "validation"),
        ("test", "test"),
        ("Dev", "validation"),
    ],
)
def test_a_split_has_several_names(write, written, side):
    corpus = read_manifest(
        write(f"path,label,speaker,split\nwav/a.flac,happy,s1,{written}\nwav/b.wav,sad,s2,{written}\n")
    )
    assert [u.split for u in corpus.utterances] == [side, side]


def test_missing_files_are_counted(write):
    corpus = read_manifest(write(ROWS + "wav/c.wav,angry,s3\n"))
    assert len(corpus.utterances) == 2
    assert corpus.classes == ("angry", "happy", "sad")  # listed, so that its absence from a side is told
    assert [(s.path.name, s.reason) for s in corpus.skipped] == [("c.wav", "listed, but the file is missing")]


def test_a_manifest_is_one_of_the_corpora(write):
    path = write(ROWS)
    assert read_corpus("manifest", path) == read_manifest(path)


def test_four_classes_leave_other_labels_out(write):
    corpus = read_corpus("manifest", write(ROWS.replace("sad", "calm") + "wav/c.wav,calm,s1\n"), "four")
    assert corpus.classes == FOUR_CLASSES
    assert [u.label for u in corpus.utterances] == ["happy"]
    assert corpus.skipped == []  # nothing of the calm ones is needed


def test_four_classes_that_it_has_not_are_refused(write):
    path = write(ROWS.replace("happy", "joy").replace("sad", "grief"))
    refused(path, r"none of its labels \(grief, joy\) is one of angry, happy, neutral, sad; rename", FOUR_CLASSES)


def test_a_manifest_goes_from_its_file_to_folds(tmp_path):
    rows = [(f"{speaker}{label}", label, speaker) for speaker in "abc" for label in ("happy", "sad")]
    touch(tmp_path, [f"{name}.wav" for name, _, _ in rows])
    path = tmp_path / "corpus.csv"
    for column, cells in {"split": "train val test", "fold": "9 10 11"}.items():
        cell = dict(zip("abc", cells.split(), strict=True))
        lines = [f"{name}.wav,{label},{speaker},{cell[speaker]}\n" for name, label, speaker in rows]
        path.write_text(f"path,label,speaker,{column}\n" + "".join(lines))
        tested = [sorted({u.speaker for u in fold.test}) for fold in manifest_folds(read_manifest(path))]
        assert tested == ([["c"]] if column == "split" else [["a"], ["b"], ["c"]])


# ---- what is not a manifest


def test_a_missing_manifest_is_refused(tmp_path):
    refused(
        tmp_path / "nowhere.csv", r"nowhere\.csv does not exist; give a CSV file with the columns path, label, speaker"
    )


def test_a_directory_is_refused(tmp_path):
    refused(tmp_path, "is a directory; give a CSV file with the columns path, label, speaker")


def test_another_encoding_is_refused_by_its_line_and_byte(write):
    path = write(ROWS.replace("sad", "traurig ä").encode("latin-1"))
    refused(path, r"line 2: byte 0xe4 is not utf-8; save the file as CSV in utf-8")


@pytest.mark.parametrize("content", ["", "\n" + ROWS, ",,\n"])
def test_a_file_without_header_is_refused(write, content):
    refused(write(content), "has no header; its first line must name the columns path, label, speaker")


def test_a_file_without_rows_is_refused(write):
    refused(write("path,label,speaker\n\n"), "lists no utterance; add a row")


def test_missing_columns_are_named(write):
    refused(
        write(ROWS.replace("speaker", "actor")), "there is no column speaker among 'path, label, actor'; its first line"
    )
    refused(write("a.wav,happy,s1\n"), "there is no column path nor label nor speaker among 'a.wav, happy, s1'; its")


@pytest.mark.parametrize(("delimiter", "name"), [(";", "semicolons"), ("\t", "tabs")])
def test_another_delimiter_is_named(write, delimiter, name):
    refused(write(ROWS.replace(",", delimiter)), rf"among 'path.*'\. The cells are separated by {name}; .* by commas")


def test_a_column_named_twice_is_refused(write):
    refused(write("path,label,speaker,label\nwav/a.flac,happy,s1,sad\n"), "more than one column label; keep one")
    twice_unknown = "path,label,speaker,note,note\nwav/a.flac,happy,s1,,\nwav/b.wav,sad,s2,,\n"
    assert len(read_manifest(write(twice_unknown)).utterances) == 2


# ---- what is wrong with a row


@pytest.mark.parametrize("column", ["path", "label", "speaker"])
@pytest.mark.parametrize("blank", ["", "  "])
def test_an_empty_cell_is_named(write, column, blank):
    cells = {"path": "wav/c.wav", "label": "sad", "speaker": "s1"} | {column: blank}
    refused(write(ROWS + ",".join(cells.values()) + "\n"), rf"line 4: {column} is empty; fill it")


def test_a_row_cut_short_is_refused(write):
    refused(write(ROWS + "wav/c.wav,sad\n"), r"line 4: speaker is empty")


def test_a_comma_too_many_is_refused(write):
    refused(write(ROWS + "wav/oh, no.wav,sad,s1\n"), r"line 4: has more cells than the header's 3; put .* in double")


def test_a_quote_that_is_not_closed_is_refused(write):
    refused(write(ROWS.replace("wav/b.wav", '"wav/b.wav')), r"line 2: not CSV \(unexpected end of data\); mend its quo")


def test_an_id_given_twice_is_refused(write):
    refused(write("path,label,speaker,id\nwav/a.flac,happy,s1,x\nwav/b.wav,sad,s2,x\n"), "line 3: the id x is that of")
    refused(write(ROWS + "wav/a.wav,sad,s1\n"), r"line 4: the id wav/a is that of line 3 too; give .* in the column id")


def test_a_file_listed_twice_is_refused(write):
    path = write(ROWS + "./wav/../wav/a.flac,sad,s2\n")
    refused(path, r"line 4: .*a\.flac is listed on line 3 too, with another label or speaker; keep one")
    refused(write(ROWS + "wav/a.flac,happy,s2\n"), r"line 4: .*a\.flac is listed on line 3 too, with another")


@pytest.mark.parametrize("path", ["wav/a.flac", "./wav/a.flac"])
def test_a_repeated_row_is_to_be_removed(write, path):
    refused(write(f"{ROWS}{path},happy,s1\n"), r"line 4: repeats line 3; remove it\.$")


def test_names_that_differ_in_case_alone_are_noted(write):
    corpus = read_manifest(write("path,label,speaker\nwav/a.flac,happy,Anna\nwav/b.wav,Happy,anna\n"))
    assert corpus.classes == ("Happy", "happy")
    assert corpus.notes == [
        "The labels Happy and happy differ in case alone and count as 2.",
        "The speakers Anna and anna differ in case alone and count as 2, and one person may so be in both training "
        "and test.",
    ]
    corpus = read_manifest(write(ROWS.replace("sad", "Happy")), FOUR_CLASSES)
    assert corpus.notes[0].startswith("The labels Happy and happy")  # one of which is left out


def test_one_label_alone_is_refused(write):
    refused(write(ROWS.replace("sad", "happy")), "every label is happy; .* at least 2 labels")


def test_no_audio_at_all_is_refused(write, tmp_path):
    refused(
        write(ROWS.replace("wav/", "audio/")),
        rf"none of the 2 audio files it lists exists \(.*audio/b\.wav is missing, for one\); .*relative to {tmp_path}",
    )


def test_an_unknown_split_is_refused(write):
    path = write("path,label,speaker,split\nwav/a.flac,happy,s1,train\nwav/b.wav,sad,s2,holdout\n")
    refused(path, r"line 3: split is holdout, expected train, validation \(or val, valid, dev\) or test")


@pytest.mark.parametrize(("column", "value"), [("fold", "1"), ("split", "train")])
def test_sides_of_some_rows_only_are_refused(write, column, value):
    path = write(f"path,label,speaker,{column}\nwav/a.flac,happy,s1,{value}\nwav/b.wav,sad,s2,\n")
    refused(path, rf"line 3: {column} is empty, but filled on line 2; fill it in every row or in none")


def test_fold_and_split_together_are_refused(write):
    path = write("path,label,speaker,fold,split\nwav/a.flac,happy,s1,1,train\nwav/b.wav,sad,s2,2,test\n")
    refused(path, "both fold and split are filled; remove")


def test_columns_left_empty_do_not_count(write):
    path = write("path,label,speaker,fold,split\nwav/a.flac,happy,s1,1,\nwav/b.wav,sad,s2,2,\n")
    assert [u.fold for u in read_manifest(path).utterances] == ["1", "2"]
