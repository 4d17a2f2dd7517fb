"""Asking a trained model about recordings."""
