"""Corpora from disk: utterances with their labels and speakers, folds of them, and their audio."""
