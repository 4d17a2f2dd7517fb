"""What a run trains: every system on every fold, with every seed; and where each training keeps its files."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from recipe.data.corpus import Fold
from recipe.training.systems import System


@dataclass(frozen=True, eq=False)
class Training:
    """One system on one fold with one seed; one object for each, and equal to no other."""

    seed: int
    fold: Fold
    system: System
    folder: Path

    @property
    def name(self) -> str:
        return f"seed {self.seed}, fold {self.fold.number}, {self.system.name}"

    @property
    def draw(self) -> int:
        """The seed of its random numbers. The systems of stage 2 share one, which makes them comparable in pairs."""
        return 1000 * self.seed + 10 * self.fold.number + self.system.stage - 1

    @property
    def result_file(self) -> Path:
        return self.folder / "result.json"

    @property
    def outputs_file(self) -> Path:
        return self.folder / "outputs.safetensors"

    @property
    def splices_file(self) -> Path:
        return self.folder / "splices.safetensors"

    @property
    def weights_file(self) -> Path:
        """Of stage 1, without the frozen front end: what systems of stage 2 begin with."""
        return self.folder / "model.safetensors"

    @property
    def checkpoint_file(self) -> Path:
        return self.folder / "checkpoint.safetensors"

    @property
    def finished(self) -> bool:
        return self.result_file.exists()  # written last


@dataclass(frozen=True)
class Block:
    """All systems on one fold with one seed, as statistics calls what is compared in pairs; they share a stage 1."""

    seed: int
    fold: Fold
    stage1: Training
    systems: list[Training]

    @property
    def trainings(self) -> list[Training]:
        return [self.stage1, *self.systems]


def make_plan(seeds: Sequence[int], folds: Sequence[Fold], systems: Sequence[System], output: Path) -> list[Block]:
    """Seed by seed, so that a run that is stopped has all folds of some seeds, rather than some of all.

    The first of `systems` is stage 1.
    """

    def blocks() -> Iterator[Block]:
        for seed in seeds:
            for fold in folds:
                folder = output / "trainings" / f"seed-{seed}-fold-{fold.number}"
                stage1, *others = (Training(seed, fold, system, folder / system.slug) for system in systems)
                yield Block(seed, fold, stage1, others)

    return list(blocks())
