"""How much emotion a linear probe finds in each layer of the pretrained d-vector encoder:

python benchmarks/linear_probe.py --corpus ravdess --data PATH/TO/Audio_Speech_Actors_01-24
python benchmarks/linear_probe.py --corpus emodb --classes four --data PATH/TO/EmoDB

Mean and standard deviation over time of a layer's states, standardised, then logistic regression; trained on all
speakers but those tested. It says what fine-tuning has to beat, and why the recipe leaves the third layer out.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

sys.path.append(str(Path(__file__).parents[1] / "examples"))

from recipe.data.audio import read_waveform, usable_audio
from recipe.data.corpora import read_corpus
from recipe.data.speaker_groups import speaker_groups
from recipe.features.backbones.dvector import DVectorBackbone, pretrained_layer
from recipe.training.scores import score


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", required=True, choices=("crema-d", "ravdess", "emodb"))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--classes", choices=("own", "four"), default="own")
    arguments = parser.parse_args()

    corpus = read_corpus(arguments.corpus, arguments.data, arguments.classes)
    backbone = DVectorBackbone()
    layers = [pretrained_layer(number) for number in range(3)]

    def statistics(path: Path) -> list[np.ndarray]:
        """Of each layer."""
        states, found = backbone.mel_spectrum(read_waveform(path)), []
        for layer in layers:
            states, _ = layer(states)
            found.append(torch.cat([states.mean(dim=0), states.std(dim=0)]).numpy())
        return found

    usable, skipped = usable_audio(corpus, statistics)
    corpus = corpus.with_only(usable, skipped)
    labels = np.array([corpus.classes.index(u.label) for u in corpus.utterances])
    speakers = np.array([u.speaker for u in corpus.utterances])
    for number, found in enumerate(zip(*usable.values(), strict=True), start=1):
        vectors, predictions = np.array(found), np.empty_like(labels)
        for group in speaker_groups(corpus):
            test = np.isin(speakers, group)
            probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.02, max_iter=1000))
            predictions[test] = probe.fit(vectors[~test], labels[~test]).predict(vectors[test])
        print(f"layer {number}: pooled UA {score(labels, predictions, len(corpus.classes)).ua:.3f}")


if __name__ == "__main__":
    main()
