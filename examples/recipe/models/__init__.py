"""Trained models in folders that stand alone."""
