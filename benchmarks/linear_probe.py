"""How much emotion a linear probe finds in each layer of a pretrained encoder:

python benchmarks/linear_probe.py --corpus ravdess --data PATH/TO/Audio_Speech_Actors_01-24 --backbone dvector
python benchmarks/linear_probe.py --corpus emodb --classes four --data PATH/TO/EmoDB --backbone openai/whisper-base

Statistics over time of a layer's states, standardised, then logistic regression. It says what fine-tuning has to beat,
and which layer to begin with. Trained on all speakers but those tested; and on those that the recipe trains on, which
keeps a group of them back for validation. Last, with each speaker's utterances standardised by themselves, the tested
speaker's too: what is left where the voices are known.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

sys.path.append(str(Path(__file__).parents[1] / "examples"))

from recipe.data.audio import read_waveform, usable_audio
from recipe.data.corpora import read_corpus
from recipe.data.corpus import Corpus
from recipe.data.speaker_groups import speaker_groups
from recipe.features.backbones import dvector, load_backbone
from recipe.features.transformer import TransformerBackbone
from recipe.settings import Settings
from recipe.training.scores import score


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", required=True, choices=("crema-d", "ravdess", "emodb"))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--classes", choices=("own", "four"), default="own")
    parser.add_argument("--backbone", default="dvector", help="dvector, or a Transformer's name or path")
    arguments = parser.parse_args()

    corpus = read_corpus(arguments.corpus, arguments.data, arguments.classes)
    layers = layers_of(arguments.backbone)

    def statistics(path: Path) -> list[np.ndarray]:
        """Of each layer, its mean and its deviation."""
        found = layers(read_waveform(path))
        return [torch.stack([states.mean(dim=0), states.std(dim=0)]).numpy() for states in found]

    usable, skipped = usable_audio(corpus, statistics)
    corpus = corpus.with_only(usable, skipped)
    print("pooled UA, by what is probed and by whom the probe is trained on")
    print("         all other speakers            the recipe's   by speaker")
    print("         mean     mean and deviation   mean           mean")
    for number, found in enumerate(zip(*usable.values(), strict=True), start=arguments.backbone == "dvector"):
        means = np.array([mean for mean, _ in found])
        both = np.array(found).reshape(len(found), -1)
        scores = (
            probed(corpus, means, 0.01),
            probed(corpus, both, 0.02),
            probed(corpus, means, 0.01, validation=True),
            probed(corpus, standardised_by_speaker(corpus, means), 0.01),
        )
        print("layer {}  {:<8.3f} {:<20.3f} {:<14.3f} {:.3f}".format(number, *scores), flush=True)


def probed(corpus: Corpus, vectors: np.ndarray, strength: float, validation: bool = False) -> float:
    """Pooled UA over the groups of speakers that the recipe's folds test; `validation` keeps the next group back."""
    labels = np.array([corpus.classes.index(u.label) for u in corpus.utterances])
    speakers = np.array([u.speaker for u in corpus.utterances])
    groups = speaker_groups(corpus)
    predictions = np.empty_like(labels)
    for number, group in enumerate(groups):
        test, kept_back = np.isin(speakers, group), np.isin(speakers, groups[(number + 1) % len(groups)])
        train = ~test & ~kept_back if validation else ~test
        probe = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=2000))
        predictions[test] = probe.fit(vectors[train], labels[train]).predict(vectors[test])
    return score(labels, predictions, len(corpus.classes)).ua


def standardised_by_speaker(corpus: Corpus, vectors: np.ndarray) -> np.ndarray:
    speakers, found = np.array([u.speaker for u in corpus.utterances]), np.empty_like(vectors)
    for speaker in set(speakers):
        found[speakers == speaker] = StandardScaler().fit_transform(vectors[speakers == speaker])
    return found


def layers_of(name: str) -> Callable[[Tensor], list[Tensor]]:
    """From a waveform to each layer's states, (time, dim); of a Transformer state 0 comes first."""
    if name == "dvector":
        recurrent = [dvector.layer(number, pretrained=True) for number in range(3)]
        backbone = dvector.DVectorBackbone()

        def of_dvector(waveform: Tensor) -> list[Tensor]:
            states, found = backbone.mel_spectrum(waveform), []
            for layer in recurrent:
                states, _ = layer(states)
                found.append(states)
            return found

        return of_dvector
    transformer = load_backbone(name, Settings()).eval()
    if not isinstance(transformer, TransformerBackbone):
        raise SystemExit(f"--backbone {name}: has no layers to choose from.")

    def of_transformer(waveform: Tensor) -> list[Tensor]:
        steps = transformer.features(waveform)[None]
        mask = torch.ones(steps.shape[:2], dtype=torch.bool)
        return [state[0] for state in transformer.states(transformer.embed(steps, mask), mask, 0, transformer.depth)]

    return of_transformer


if __name__ == "__main__":
    main()
