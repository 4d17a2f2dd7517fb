"""The frozen front end's features on disk, computed once for each audio file and backbone.

A cache is a folder of safetensors files, each with the features of some audio files, in float16 unless another type
was asked for, under the SHA-256 of their content. They are read through memory maps, so that the pages are shared by
all processes that train on them. The folder's name is a fingerprint of all else that features depend on: the front
end's weights, the code and the libraries that compute them. So a changed file, model or program never finds what an
earlier one left.

A file's name is the hash of what it holds, since safetensors notice a cut but no flipped bit. Checking it when the file
is opened takes less than a second per gigabyte; IEMOCAP has 1.3. Files may be removed while others have them mapped,
and are never written to again: a map of a file that somebody cuts where it is ends the process that reads it.
"""

import contextlib
import hashlib
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from recipe.data import audio, containers, splices
from recipe.data.audio import at_speed, file_content, usable_audio, waveform
from recipe.data.corpus import Corpus, Skipped
from recipe.data.splices import Splice
from recipe.errors import RecipeError
from recipe.features.backbone import Backbone
from recipe.files import digest, write_bytes, write_text
from recipe.progress_bar import progress_bar

_SHARD = 64 * 2**20  # bytes; a run that is killed has lost no more than these
_README = "Features of audio files, computed by framealign's examples. Delete the folder whenever you like.\n"


class FeatureCache:
    def __init__(
        self, root: Path, backbone: Backbone, device: torch.device, dtype: torch.dtype = torch.float16
    ) -> None:
        self.backbone, self.device, self.dtype = backbone, device, dtype
        self.folder = root / fingerprint(backbone, dtype)
        self.features: dict[str, Tensor] = {}  # by content
        self.pending: dict[str, Tensor] = {}
        self.seen: set[str] = set()  # files that were opened
        self.open()

    def open(self) -> None:
        """Map what is new on disk; a file that is not whole is removed, and its features are computed again."""
        for path in sorted(self.folder.glob("*.safetensors")):
            if path.name in self.seen:
                continue
            self.seen.add(path.name)
            try:
                if digest(path.read_bytes()) == path.stem:
                    # the map outlives the file object, and the file: the tensors hold it
                    with safe_open(path, framework="pt") as shard:
                        self.features |= {name: shard.get_tensor(name) for name in shard.keys()}  # noqa: SIM118
                    continue
                problem = "not as it was written; removing it"
                with contextlib.suppress(OSError):  # of a folder that is not ours
                    path.unlink()
            except FileNotFoundError:  # another process was faster, or somebody emptied the folder
                continue
            except OSError as error:
                problem = f"cannot be read ({error.strerror or error})"
            print(f"note: {path}: {problem}; its features are computed again.", flush=True)

    def of(self, path: Path, speed: float = 1.0) -> str:
        """The content's fingerprint of an audio file, whose features at a speed are then in the cache.

        Raises:
            AudioError: When the file cannot be used.
        """
        content = file_content(path)
        found = hashlib.sha256(content)
        if speed != 1:
            found.update(f"at speed {speed}".encode())
        return self.named(found.hexdigest(), lambda: at_speed(waveform(path, content), speed))

    def of_splice(self, splice: Splice, contents: Mapping[str, str]) -> str:
        """Likewise, of a splice of files whose contents' fingerprints are known, by utterance."""
        parts = contents[splice.first.id], splice.first_speech, contents[splice.second.id], splice.second_speech
        return self.named(hashlib.sha256(repr(parts).encode()).hexdigest(), splice.waveform)

    def named(self, name: str, waveform: Callable[[], Tensor]) -> str:
        """Computes the features under `name`, unless they are there."""
        if name not in self.features and name not in self.pending:
            self.pending[name] = self.kept(self.backbone.features(waveform().to(self.device)))
            if sum(steps.nbytes for steps in self.pending.values()) >= _SHARD:
                self.write()
        return name

    def kept(self, steps: Tensor) -> Tensor:
        kept = steps.cpu().to(self.dtype, memory_format=torch.contiguous_format, copy=True)
        if not kept.isfinite().all():
            raise RecipeError(
                f"--cache_dtype {str(self.dtype).removeprefix('torch.')}: a feature of {steps.abs().max():.3g} does "
                "not fit; use bfloat16 or float32."
            )
        return kept

    def write(self) -> None:
        if not self.pending:
            return
        content = save(self.pending)
        path, readme = self.folder / f"{digest(content)}.safetensors", self.folder.parent / "README.txt"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RecipeError(
                f"--cache {self.folder.parent}: cannot be written ({error.strerror}); name another folder."
            ) from None
        if not readme.exists():
            write_text(readme, _README)
        # two runs may compute the same features, and neither waits for the other: equal files, equal names
        write_bytes(path, content)
        self.seen.discard(path.name)  # it may have replaced a damaged one
        self.open()
        self.features = self.pending | self.features  # from memory, where somebody removed the file meanwhile
        self.pending = {}


class CorpusFeatures(NamedTuple):
    by_id: dict[str, Tensor]  # of the utterances whose audio can be used
    skipped: list[Skipped]  # the other files
    content: str  # a fingerprint of the usable utterances: labels, speakers, audio
    contents: dict[str, str]  # fingerprints of the usable files, by utterance
    sounds: dict[str, str]  # of what is heard in them, whatever the container


def cached_features(corpus: Corpus, cache: FeatureCache, progress: bool = True) -> CorpusFeatures:
    contents, skipped = usable_audio(corpus, cache.of, progress)
    cache.write()
    lines = [f"{u.id}\t{u.label}\t{u.speaker}\t{contents[u.id]}" for u in corpus.utterances if u.id in contents]
    by_id = {id: cache.features[name] for id, name in contents.items()}
    return CorpusFeatures(
        by_id,
        skipped,
        hashlib.sha256("\n".join(lines).encode()).hexdigest(),
        contents,
        {id: steps_digest(steps) for id, steps in by_id.items()},
    )


def perturbed_features(
    corpus: Corpus, speeds: Sequence[float], cache: FeatureCache, progress: bool = True
) -> dict[tuple[str, float], Tensor]:
    """Of a corpus of usable files, by utterance and speed."""
    wanted = [(utterance, speed) for speed in speeds for utterance in corpus.utterances]
    shown = progress_bar(wanted, desc="changing speed", unit="file", disable=not progress or not wanted)
    names = {(utterance.id, speed): cache.of(utterance.path, speed) for utterance, speed in shown}
    cache.write()
    return {key: cache.features[name] for key, name in names.items()}


def splice_features(
    wanted: Sequence[Splice], contents: Mapping[str, str], cache: FeatureCache, progress: bool = True
) -> dict[tuple[str, str], Tensor]:
    """By the splices' ids; `contents` are fingerprints of the corpus's files."""
    shown = progress_bar(wanted, desc="splicing utterances", unit="splice", disable=not progress)
    names = {splice.id: cache.of_splice(splice, contents) for splice in shown}
    cache.write()
    return {id: cache.features[name] for id, name in names.items()}


def fingerprint(backbone: Backbone, dtype: torch.dtype = torch.float16) -> str:
    found = state_digest(backbone.front_end())
    found.update(f"{dtype} {backbone.preprocessing}".encode())
    kinds = [kind for kind in type(backbone).__mro__ if issubclass(kind, Backbone)]
    for module in (*map(inspect.getmodule, kinds), audio, containers, splices, sys.modules[__name__]):
        found.update(inspect.getsource(module).encode())
    for package in ("torch", "torchaudio", "transformers", "soundfile"):
        found.update(version(package).encode())
    return found.hexdigest()[:32]


def steps_digest(steps: Tensor) -> str:
    """Of every so many of them: equal for the same sound in another file, and no reading of a gigabyte."""
    some = steps[:: max(1, len(steps) // 32)].contiguous()
    return f"{len(steps)} {digest(some.view(torch.uint8).numpy().tobytes())}"


def state_digest(state: Mapping[str, Tensor]) -> "hashlib._Hash":
    found = hashlib.sha256()
    for name, value in sorted(state.items()):
        found.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        found.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return found
