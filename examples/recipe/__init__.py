"""What the example scripts share: corpora, folds, audio, backbones, training, scores, figures and report."""
