"""The cache of features: never stale, never half a file, whoever writes beside it, and mapped rather than held."""

import copy
import hashlib
import inspect
import multiprocessing
import os
import re
import resource
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from recipe.data import audio, splices
from recipe.data.audio import SAMPLE_RATE, read_waveform
from recipe.data.corpus import Corpus, Utterance
from recipe.data.splices import FADE, Splice
from recipe.errors import RecipeError
from recipe.features import cache as feature_cache
from recipe.features import transformer
from recipe.features.backbones import load_backbone, wav2vec2
from recipe.features.cache import FeatureCache, cached_features, fingerprint, splice_features

CPU = torch.device("cpu")
processes = multiprocessing.get_context("fork") if "fork" in multiprocessing.get_all_start_methods() else None
needs_fork = pytest.mark.skipif(processes is None, reason="needs fork")


@pytest.fixture(scope="module")
def original():
    return load_backbone("tiny")


@pytest.fixture
def backbone(original):
    return copy.deepcopy(original)


@pytest.fixture
def root(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def corpus(tmp_path):
    (tmp_path / "audio").mkdir()
    return Corpus("test corpus", ("happy",), [utterance(tmp_path, number) for number in range(6)])


@pytest.fixture
def a_file_each(monkeypatch):
    monkeypatch.setattr(feature_cache, "_SHARD", 1)


def utterance(folder, number):
    path = folder / "audio" / f"{number}.wav"
    write_noise(path, number, 4000 + 100 * number)
    return Utterance(str(number), path, "happy", "1001")


def write_noise(path, seed, samples):
    soundfile.write(path, np.random.default_rng(seed).uniform(-0.5, 0.5, samples), SAMPLE_RATE)


def counted(backbone):
    """Lengths of the waveforms that `backbone` computes features of from now on."""
    lengths, compute = [], type(backbone).features

    def features(waveform):
        lengths.append(len(waveform))
        return compute(backbone, waveform)

    backbone.features = features
    return lengths


def cached(corpus, backbone, root):
    """The features, and how many utterances they were computed for."""
    computed = counted(backbone)
    features, *_ = cached_features(copy.copy(corpus), FeatureCache(root, backbone, CPU), progress=False)
    return features, len(computed)


def assert_right(features, corpus, backbone):
    """Bit for bit what the backbone makes of each file as it is now."""
    assert list(features) == [utterance.id for utterance in corpus.utterances]
    for utterance in corpus.utterances:
        expected = type(backbone).features(backbone, read_waveform(utterance.path)).half()
        assert torch.equal(features[utterance.id], expected), utterance.id


def exit_codes(*functions):
    running = [processes.Process(target=function) for function in functions]
    for process in running:
        process.start()
    for process in running:
        process.join(60)
    return [process.exitcode for process in running]


def shards(root):
    return sorted(root.glob("*/*.safetensors"))


def leftovers(root):
    return sorted(root.rglob("*.partial"))


# ---- stale


def test_unchanged_files_are_not_computed_again(corpus, backbone, root):
    first, _, content, *_ = cached_features(corpus, FeatureCache(root, backbone, CPU), progress=False)
    assert_right(first, corpus, backbone)
    computed = counted(backbone)
    second, _, again, *_ = cached_features(corpus, FeatureCache(root, backbone, CPU), progress=False)
    assert computed == []
    assert content == again
    assert list(second) == list(first)
    assert all(torch.equal(second[id], first[id]) for id in first)


def test_other_audio_under_the_same_name_size_and_time_is_noticed(corpus, backbone, root):
    features, _, content, *_ = cached_features(corpus, FeatureCache(root, backbone, CPU), progress=False)
    path = corpus.utterances[2].path
    before = path.stat()
    write_noise(path, 99, 4200)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    computed = counted(backbone)
    found, _, other, *_ = cached_features(corpus, FeatureCache(root, backbone, CPU), progress=False)
    assert computed == [4200]
    assert_right(found, corpus, backbone)
    assert not torch.equal(found["2"], features["2"])
    assert content != other


def test_a_file_that_moves_keeps_its_features(corpus, backbone, root, tmp_path):
    cached(corpus, backbone, root)
    (tmp_path / "audio").rename(tmp_path / "moved")
    moved = [Utterance(f"new {u.id}", tmp_path / "moved" / u.path.name, "happy", "1001") for u in corpus.utterances]
    corpus.utterances = moved
    features, computed = cached(corpus, backbone, root)
    assert computed == 0
    assert_right(features, corpus, backbone)


def test_other_weights_of_the_front_end_are_another_cache(corpus, backbone, root):
    before, _ = cached(corpus, backbone, root)
    other = copy.deepcopy(backbone)
    with torch.no_grad():
        other.model.feature_extractor.conv_layers[3].conv.weight[0, 0, 0] += 0.5
    features, computed = cached(corpus, other, root)
    assert computed == 6
    assert_right(features, corpus, other)
    assert not torch.equal(features["0"], before["0"])
    features, computed = cached(corpus, backbone, root)  # and those of the first are still there
    assert computed == 0
    assert_right(features, corpus, backbone)


def test_fine_tuned_weights_share_the_features(corpus, backbone, root):
    cached(corpus, backbone, root)
    with torch.no_grad():
        for parameter in backbone.parameters():
            if parameter.requires_grad:
                parameter += 1
    assert cached(corpus, backbone, root)[1] == 0


def test_other_preprocessing_is_another_cache(corpus, backbone, root):
    before, _ = cached(corpus, backbone, root)
    backbone.normalise = False
    features, computed = cached(corpus, backbone, root)
    assert computed == 6
    assert_right(features, corpus, backbone)
    assert not torch.equal(features["0"], before["0"])


def test_other_layers_of_equal_weights_are_another_cache(backbone):
    before = fingerprint(backbone)
    backbone.model.config.feat_extract_activation = "relu"
    assert fingerprint(backbone) != before


@pytest.mark.parametrize("module", [audio, splices, wav2vec2, transformer, feature_cache])
def test_other_code_is_another_cache(backbone, monkeypatch, module):
    before, source = fingerprint(backbone), inspect.getsource
    monkeypatch.setattr(inspect, "getsource", lambda part: source(part) + ("\n" if part is module else ""))
    assert fingerprint(backbone) != before
    monkeypatch.undo()
    assert fingerprint(backbone) == before


@pytest.mark.parametrize("package", ["torch", "torchaudio", "transformers", "soundfile"])
def test_other_libraries_are_another_cache(backbone, monkeypatch, package):
    before, version = fingerprint(backbone), feature_cache.version
    monkeypatch.setattr(feature_cache, "version", lambda name: version(name) + (".post1" if name == package else ""))
    assert fingerprint(backbone) != before


def test_equal_files_share_one_entry(corpus, backbone, root):
    for number in (3, 5):
        shutil.copy(corpus.utterances[0].path, corpus.utterances[number].path)
    features, computed = cached(corpus, backbone, root)
    assert computed == 4
    assert_right(features, corpus, backbone)
    assert features["0"].data_ptr() == features["3"].data_ptr() == features["5"].data_ptr()


def test_an_unusable_file_is_skipped_in_every_run(corpus, backbone, root):
    soundfile.write(corpus.utterances[1].path, np.zeros(4000), SAMPLE_RATE)
    runs = [cached_features(corpus, FeatureCache(root, backbone, CPU), progress=False) for _ in range(2)]
    for features, [skipped], *_ in runs:
        assert list(features) == ["0", "2", "3", "4", "5"]
        assert_right(features, corpus.with_only(features, [skipped]), backbone)
        assert skipped.path == corpus.utterances[1].path
        assert skipped.reason == "is digitally silent; copy or unpack it again"
    assert runs[0].content == runs[1].content


@pytest.mark.parametrize("change", [{"label": "sad"}, {"speaker": "1002"}, {"id": "another"}])
def test_the_corpus_is_told_apart_by_labels_speakers_and_ids(corpus, backbone, root, change):
    before = cached_features(corpus, FeatureCache(root, backbone, CPU), progress=False)
    first = corpus.utterances[0]
    corpus.utterances[0] = Utterance(**{**vars(first), **change})
    after = cached_features(corpus, FeatureCache(root, backbone, CPU), progress=False)
    assert before.content != after.content


# ---- damaged


def header_size(content):
    return 8 + int.from_bytes(content[:8], "little")


def replace(path, content):
    path.unlink()  # cutting it where it is would take the pages away from those who have it mapped
    path.write_bytes(content)


def flipped(content, index):
    return content[:index] + bytes([content[index] ^ 1]) + content[index + 1 :]


DAMAGES = {
    "empty": lambda content: b"",
    "within the header's length": lambda content: content[:5],
    "within the header": lambda content: content[: header_size(content) // 2],
    "behind the header": lambda content: content[: header_size(content)],
    "half": lambda content: content[: len(content) // 2],
    "one byte less": lambda content: content[:-1],
    "one byte more": lambda content: content + b"\0",
    "random bytes": lambda content: np.random.default_rng(0).bytes(len(content)),
    "zeros": lambda content: bytes(len(content)),
    "a flipped bit": lambda content: flipped(content, len(content) * 2 // 3),
    "another type in the header": lambda content: content.replace(b'"F16"', b'"I16"', 1),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_removed_and_computed_again(corpus, backbone, root, a_file_each, capsys, damage):
    first, _ = cached(corpus, backbone, root)
    path = shards(root)[2]
    whole = path.read_bytes()
    replace(path, DAMAGES[damage](whole))
    assert path.read_bytes() != whole
    features, computed = cached(corpus, backbone, root)
    assert computed == 1
    assert_right(features, corpus, backbone)
    assert capsys.readouterr().out == (
        f"note: {path}: not as it was written; removing it; its features are computed again.\n"
    )
    assert path.read_bytes() == whole
    features, computed = cached(corpus, backbone, root)
    assert computed == 0
    assert capsys.readouterr().out == ""
    assert all(torch.equal(features[id], first[id]) for id in first)


def test_when_every_file_is_damaged_all_is_computed_again(corpus, backbone, root, a_file_each, capsys):
    cached(corpus, backbone, root)
    for path, damage in zip(shards(root), DAMAGES.values(), strict=False):
        replace(path, damage(path.read_bytes()))
    features, computed = cached(corpus, backbone, root)
    assert computed == 6
    assert capsys.readouterr().out.count("note: ") == 6
    assert_right(features, corpus, backbone)


def test_a_damaged_file_is_told_once(corpus, backbone, root, capsys):
    """Even where what is recomputed does not take its place."""
    cached(corpus, backbone, root)
    [path] = shards(root)
    replace(path, path.read_bytes()[:-1])
    del corpus.utterances[3:]
    assert cached(corpus, backbone, root)[1] == 3
    assert capsys.readouterr().out.count("note: ") == 1
    assert not path.exists()
    assert cached(corpus, backbone, root)[1] == 0
    assert capsys.readouterr().out == ""


def test_an_unfinished_file_is_none(corpus, backbone, root, capsys):
    first, _ = cached(corpus, backbone, root)
    [path] = shards(root)
    partial = path.with_name(f".{path.name}.0.partial")
    path.rename(partial)
    replace(partial, partial.read_bytes()[:-1])
    features, computed = cached(corpus, backbone, root)
    assert computed == 6
    assert capsys.readouterr().out == ""
    assert leftovers(root) == [partial]
    assert all(torch.equal(features[id], first[id]) for id in first)


def test_what_cannot_be_read_is_left_alone(corpus, backbone, root, capsys):
    folder = root / fingerprint(backbone) / "folder.safetensors"
    folder.mkdir(parents=True)
    features, *_ = cached(corpus, backbone, root)
    assert_right(features, corpus, backbone)
    assert capsys.readouterr().out == (
        f"note: {folder}: cannot be read (Is a directory); its features are computed again.\n"
    )
    assert folder.is_dir()


def test_a_run_cannot_spoil_the_files(corpus, backbone, root):
    features, *_ = cached(corpus, backbone, root)
    features["0"].zero_()
    again, computed = cached(corpus, backbone, root)
    assert computed == 0
    assert_right(again, corpus, backbone)


# ---- where nothing can be written


def test_a_folder_that_cannot_be_made_is_told(corpus, backbone, root):
    root.write_text("mine")
    message = rf"^--cache {re.escape(str(root))}: cannot be written \(Not a directory\); name another folder\.$"
    with pytest.raises(RecipeError, match=message):
        cached(corpus, backbone, root)
    assert root.read_text() == "mine"


@needs_fork
def test_a_full_disk_is_told_and_spoils_nothing(corpus, backbone, root):
    """By a limit to the size of files, which fails midway through a write as a full disk does."""
    cached(Corpus("smaller", ("happy",), corpus.utterances[:1]), backbone, root)
    [whole] = shards(root)

    def write():
        resource.setrlimit(resource.RLIMIT_FSIZE, (3_000, 3_000))
        with pytest.raises(RecipeError, match=r"cannot be written \(File too large\)"):
            cached(corpus, backbone, root)

    assert exit_codes(write) == [0]
    assert shards(root) == [whole]
    assert leftovers(root) == []
    features, computed = cached(corpus, backbone, root)
    assert computed == 5
    assert_right(features, corpus, backbone)


# ---- other processes


@needs_fork
def test_several_processes_at_once_find_the_same(corpus, backbone, root, a_file_each):
    """All find the cache empty, compute the same and write the same."""
    all_have_looked = processes.Barrier(3)

    def share():
        looked, compute = [], type(backbone).features

        def features(waveform):
            if not looked:
                all_have_looked.wait(60)
            looked.append(None)
            return compute(backbone, waveform)

        backbone.features = features
        found, *_ = cached_features(corpus, FeatureCache(root, backbone, CPU), progress=False)
        assert_right(found, corpus, backbone)

    assert exit_codes(share, share, share) == [0, 0, 0]
    assert leftovers(root) == []
    assert len(shards(root)) == 6
    features, computed = cached(corpus, backbone, root)
    assert computed == 0
    assert_right(features, corpus, backbone)


def after(calls, function, action):
    """`function`; its call of that number is `action` instead."""
    made = []

    def call(*arguments, **options):
        made.append(None)
        return (action if len(made) == calls else function)(*arguments, **options)

    return call


def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)


WRITE = Path.write_bytes


def write_half_and_die(path, content):
    WRITE(path, content[: len(content) // 2])
    die()


# what is called, the number of the call, what happens then, files that are whole afterwards, files that are not
KILLS = {
    "before the first file": (os, "fsync", 1, die, 0, 2),  # the folder's README is the first of all files
    "half a file written": (Path, "write_bytes", 4, write_half_and_die, 2, 1),
    "written and not renamed": (os, "fsync", 4, die, 2, 1),
    "renamed": (FeatureCache, "open", 4, die, 3, 0),
}


@needs_fork
@pytest.mark.parametrize("moment", KILLS)
def test_a_process_killed_while_writing_leaves_no_half_file(
    corpus, backbone, root, a_file_each, monkeypatch, capfd, moment
):
    owner, name, call, action, whole, unfinished = KILLS[moment]

    def run():
        monkeypatch.setattr(owner, name, after(call, getattr(owner, name), action))
        cached(corpus, backbone, root)

    assert exit_codes(run) == [-signal.SIGKILL]
    assert len(shards(root)) == whole
    assert len(leftovers(root)) == (1 if unfinished else 0)
    features, computed = cached(corpus, backbone, root)
    assert computed == 6 - whole
    assert_right(features, corpus, backbone)
    assert capfd.readouterr().out == ""
    assert cached(corpus, backbone, root)[1] == 0


def test_a_folder_may_be_removed_after_it_was_mapped(corpus, backbone, root):
    features, *_ = cached(corpus, backbone, root)
    shutil.rmtree(root)
    assert_right(features, corpus, backbone)
    features, computed = cached(corpus, backbone, root)
    assert computed == 6
    assert_right(features, corpus, backbone)


def test_a_folder_may_be_removed_during_the_run(corpus, backbone, root, a_file_each, capsys):
    compute = backbone.features

    def removing(waveform):
        shutil.rmtree(root)
        return compute(waveform)

    backbone.features = after(4, compute, removing)
    features, *_ = cached_features(corpus, FeatureCache(root, backbone, CPU), progress=False)
    assert_right(features, corpus, backbone)
    assert len(shards(root)) == 3
    assert capsys.readouterr().out == ""


def test_a_file_may_be_removed_as_soon_as_it_is_written(corpus, backbone, root, monkeypatch, capsys):
    write = feature_cache.write_bytes

    def vanishing(path, content):
        write(path, content)
        path.unlink()

    monkeypatch.setattr(feature_cache, "write_bytes", vanishing)
    features, *_ = cached(corpus, backbone, root)
    assert_right(features, corpus, backbone)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("owner", "name"), [(Path, "read_bytes"), (feature_cache, "safe_open")])
def test_a_file_may_vanish_while_it_is_opened(corpus, backbone, root, a_file_each, monkeypatch, capsys, owner, name):
    cached(corpus, backbone, root)
    function, gone = getattr(owner, name), shards(root)[3]

    def late(path, **options):
        if path == gone:
            path.unlink()
            monkeypatch.undo()
        return function(path, **options)

    monkeypatch.setattr(owner, name, late)
    features, computed = cached(corpus, backbone, root)
    assert computed == 1
    assert_right(features, corpus, backbone)
    assert capsys.readouterr().out == ""


def test_names_are_of_the_content_alone(corpus, backbone, root):
    """The files under which features stand are told apart by all that is in them."""
    cached(corpus, backbone, root)
    cache = FeatureCache(root, backbone, CPU)
    expected = {hashlib.sha256(utterance.path.read_bytes()).hexdigest() for utterance in corpus.utterances}
    assert set(cache.features) == expected


# ---- memory

needs_proc = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")


def own_memory():
    """Bytes that are this process's own, which maps of files are not."""
    return 1024 * int(re.search(r"RssAnon:\s+(\d+)", Path("/proc/self/status").read_text())[1])


def mapped_file(tensor):
    """The file whose map a tensor lies in."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        addresses, *_, name = line.split()
        start, end = (int(address, 16) for address in addresses.split("-"))
        if start <= tensor.data_ptr() < end:
            return Path(name)
    return None


@needs_proc
def test_features_are_mapped_in_every_run(corpus, backbone, root, a_file_each):
    for _ in range(2):
        features, *_ = cached(corpus, backbone, root)
        assert sorted(map(mapped_file, features.values())) == shards(root)
    for path in shards(root):
        replace(path, path.read_bytes()[:-1])
    features, computed = cached(corpus, backbone, root)
    assert computed == 6
    assert sorted(map(mapped_file, features.values())) == shards(root)


@needs_proc
def test_reading_mapped_features_takes_no_memory(corpus, backbone, root):
    size = 2 * 2048 * 4096  # bytes of each: 16 MiB
    backbone.features = lambda waveform: waveform[:1].expand(2048, 4096)
    for _ in range(2):  # the first run computes them
        before = own_memory()
        features, *_ = cached_features(corpus, FeatureCache(root, backbone, CPU), progress=False)
    assert len(shards(root)) == 2
    assert sum(steps.nbytes for steps in features.values()) == 6 * size
    for steps in features.values():
        assert steps.count_nonzero() == steps.numel()  # read to the last
    assert own_memory() - before < size


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_features_are_kept_in_the_type_that_was_asked_for(corpus, backbone, root, dtype):
    found = cached_features(corpus, FeatureCache(root, backbone, CPU, dtype), progress=False).by_id
    for utterance in corpus.utterances:
        exact = backbone.features(read_waveform(utterance.path))
        assert found[utterance.id].dtype == dtype
        torch.testing.assert_close(found[utterance.id], exact.to(dtype), rtol=0, atol=0)
    other = torch.float32 if dtype != torch.float32 else torch.float16
    assert FeatureCache(root, backbone, CPU, other).features == {}  # which are not taken for another type's


def test_a_value_that_does_not_fit_is_refused_and_the_way_out_named(corpus, backbone, root):
    compute = type(backbone).features
    backbone.features = lambda waveform: 1e6 * compute(backbone, waveform)
    with pytest.raises(RecipeError, match=r"--cache_dtype float16: a feature of .* does not fit; use bfloat16"):
        cached_features(corpus, FeatureCache(root, backbone, CPU), progress=False)
    kept = cached_features(corpus, FeatureCache(root, backbone, CPU, torch.bfloat16), progress=False)
    assert all(steps.isfinite().all() for steps in kept.by_id.values())


def test_a_splice_is_computed_once_and_again_when_one_of_its_files_changes(corpus, backbone, root):
    first, second = corpus.utterances[:2]
    splice = Splice(first, second, slice(100, 3000), slice(200, 4000))

    def found():
        cache = FeatureCache(root, backbone, CPU)
        return splice_features([splice], cached_features(corpus, cache, progress=False).contents, cache, progress=False)

    before = found()[splice.id].clone()
    torch.testing.assert_close(before, backbone.features(splice.waveform()).half(), rtol=0, atol=0)
    lengths = counted(backbone)
    torch.testing.assert_close(found()[splice.id], before, rtol=0, atol=0)
    assert lengths == []
    write_noise(second.path, 77, 4100)
    assert not torch.equal(found()[splice.id], before)
    assert lengths == [4100, 2900 + 3800 - FADE]
