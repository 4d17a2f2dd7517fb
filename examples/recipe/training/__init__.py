"""From features to the files of every training: models, the two stages, scores, checkpoints."""
