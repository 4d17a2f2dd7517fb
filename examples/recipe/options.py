"""All that decides what a run is, as its command line and its `config.yaml` say."""

from dataclasses import asdict, dataclass, fields
from pathlib import Path

import yaml

from recipe.files import write_text
from recipe.settings import Settings


@dataclass(frozen=True)
class Options:
    """What to run, on what, and where to; `settings` are the hyperparameters."""

    settings: Settings
    backbone: str
    output: Path
    cache: Path
    seeds: tuple[int, ...]
    folds: tuple[int, ...] | None  # all of them
    corpus: str = "iemocap"
    data: Path | None = None  # the demo corpus
    classes: str = "own"
    train_corpus: str | None = None  # the same
    train_data: Path | None = None
    systems: tuple[str, ...] = ()
    margins: tuple[float, ...] = ()  # of the ablation, as the next two
    eal_weights: tuple[float, ...] = ()
    fual_weights: tuple[float, ...] = ()
    precision: str = "auto"
    compile: bool = False
    save_models: bool = False
    dry_run: bool = False
    names: tuple[str, ...] = ()  # of the options that the script has

    def write(self, path: Path) -> None:
        """As a file for `--config`, which gives the same run again from any folder."""
        values = {field.name: plain(getattr(self, field.name)) for field in fields(self) if field.name in self.names}
        given = {name: value for name, value in values.items() if name != "dry_run" and value is not None}
        write_text(path, yaml.safe_dump({**given, **asdict(self.settings)}, sort_keys=False))


def plain(value: object) -> object:
    if isinstance(value, Path):
        return str(value.resolve())
    return list(value) if isinstance(value, tuple) else value
