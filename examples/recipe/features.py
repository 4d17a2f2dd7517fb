"""The frozen front end, run once for each utterance, and batches of what it gave."""

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from recipe.backbones import pad
from recipe.corpora.corpus import Utterance

_WINDOW = 20  # batches within which utterances are sorted by length


class UtteranceFeatures(Dataset):
    """(features, label) of some utterances; the features stand in memory, computed before."""

    def __init__(self, utterances: Sequence[Utterance], features: Mapping[str, Tensor], classes: Sequence[str]) -> None:
        self.features = [features[u.id] for u in utterances]
        self.labels = [classes.index(u.label) for u in utterances]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.features[index], self.labels[index]


class LengthBuckets(Sampler[list[int]]):
    """Random batches of utterances of similar length, which leaves little padding to compute on."""

    def __init__(self, lengths: Sequence[int], batch_size: int, generator: torch.Generator) -> None:
        self.lengths, self.batch_size, self.generator = lengths, batch_size, generator

    def __len__(self) -> int:
        return -(-len(self.lengths) // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        order = torch.randperm(len(self.lengths), generator=self.generator).tolist()
        window = _WINDOW * self.batch_size
        ranked = [
            index
            for start in range(0, len(order), window)
            for index in sorted(order[start : start + window], key=self.lengths.__getitem__)
        ]
        batches = [ranked[i : i + self.batch_size] for i in range(0, len(ranked), self.batch_size)]
        for index in torch.randperm(len(batches), generator=self.generator).tolist():
            yield batches[index]


def training_batches(data: UtteranceFeatures, batch_size: int, seed: int) -> DataLoader:
    generator = torch.Generator().manual_seed(seed)
    sampler = LengthBuckets([len(f) for f in data.features], batch_size, generator)
    return DataLoader(data, batch_sampler=sampler, collate_fn=collate)


def ordered_batches(data: UtteranceFeatures, batch_size: int) -> DataLoader:
    return DataLoader(data, batch_size=batch_size, collate_fn=collate)


def collate(items: Sequence[tuple[Tensor, int]]) -> tuple[Tensor, Tensor, Tensor]:
    features, mask = pad([features for features, _ in items])
    return features, mask, torch.tensor([label for _, label in items])
