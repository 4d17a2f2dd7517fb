"""The frozen front end's features on disk, computed once for each audio file and backbone.

A cache is a folder of safetensors files, each with the features of some audio files in float16 under the SHA-256 of
their content. They are read through memory maps, so that the pages are shared by all processes that train on them.
The folder's name is a fingerprint of all else that features depend on: the front end's weights, the code and the
libraries that compute them. So a changed file, model or program never finds what an earlier one left.

A file's name is the hash of what it holds, since safetensors notice a cut but no flipped bit. Checking it when the file
is opened takes less than a second per gigabyte; IEMOCAP has 1.3. Files may be removed while others have them mapped,
and are never written to again: a map of a file that somebody cuts where it is ends the process that reads it.
"""

import contextlib
import hashlib
import inspect
import sys
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from recipe.data import audio
from recipe.data.audio import file_content, usable_audio, waveform
from recipe.data.corpus import Corpus, Skipped
from recipe.errors import RecipeError
from recipe.features.backbone import Backbone
from recipe.files import write_bytes, write_text

_SHARD = 64 * 2**20  # bytes; a run that is killed has lost no more than these
_README = "Features of audio files, computed by framealign's examples. Delete the folder whenever you like.\n"


class FeatureCache:
    def __init__(self, root: Path, backbone: Backbone, device: torch.device) -> None:
        self.backbone, self.device = backbone, device
        self.folder = root / fingerprint(backbone)
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

    def of(self, path: Path) -> str:
        """The content's fingerprint of an audio file, whose features are then in the cache.

        Raises:
            AudioError: When the file cannot be used.
        """
        content = file_content(path)
        name = hashlib.sha256(content).hexdigest()
        if name not in self.features and name not in self.pending:
            found = self.backbone.features(waveform(path, content).to(self.device))
            self.pending[name] = found.cpu().to(torch.float16, memory_format=torch.contiguous_format, copy=True)
            if sum(steps.nbytes for steps in self.pending.values()) >= _SHARD:
                self.write()
        return name

    def write(self) -> None:
        if not self.pending:
            return
        content = save(self.pending)
        path, readme = self.folder / f"{digest(content)}.safetensors", self.folder.parent / "README.txt"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if not readme.exists():
                write_text(readme, _README)
            # two runs may compute the same features, and neither waits for the other: equal files, equal names
            write_bytes(path, content)
        except OSError as error:
            raise RecipeError(
                f"--cache {self.folder.parent}: cannot be written ({error.strerror}); name another folder."
            ) from None
        self.seen.discard(path.name)  # it may have replaced a damaged one
        self.open()
        self.features = self.pending | self.features  # from memory, where somebody removed the file meanwhile
        self.pending = {}


class CorpusFeatures(NamedTuple):
    by_id: dict[str, Tensor]  # of the utterances whose audio can be used
    skipped: list[Skipped]  # the other files
    content: str  # a fingerprint of the usable utterances: labels, speakers, audio


def cached_features(
    corpus: Corpus, backbone: Backbone, root: Path, device: torch.device, progress: bool = True
) -> CorpusFeatures:
    cache = FeatureCache(root, backbone, device)
    contents, skipped = usable_audio(corpus, cache.of, progress)
    cache.write()
    lines = [f"{u.id}\t{u.label}\t{u.speaker}\t{contents[u.id]}" for u in corpus.utterances if u.id in contents]
    return CorpusFeatures(
        {id: cache.features[name] for id, name in contents.items()},
        skipped,
        hashlib.sha256("\n".join(lines).encode()).hexdigest(),
    )


def fingerprint(backbone: Backbone) -> str:
    found = state_digest(backbone.front_end())
    found.update(backbone.preprocessing.encode())
    kinds = [kind for kind in type(backbone).__mro__ if issubclass(kind, Backbone)]
    for module in (*map(inspect.getmodule, kinds), audio, sys.modules[__name__]):
        found.update(inspect.getsource(module).encode())
    for package in ("torch", "torchaudio", "transformers", "soundfile"):
        found.update(version(package).encode())
    return found.hexdigest()[:32]


def digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def state_digest(state: dict[str, Tensor]) -> "hashlib._Hash":
    found = hashlib.sha256()
    for name, value in sorted(state.items()):
        found.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        found.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return found
