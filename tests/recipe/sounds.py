"""Sounds that are told apart by their pitch."""

import numpy as np

SAMPLE_RATE = 16_000


def tone(frequency=440.0, seconds=1.0, rate=SAMPLE_RATE, *, gain=0.3, noise=0.0, dice=None):
    """(samples,) float32; `noise` is the deviation of what `dice` adds."""
    samples = round(seconds * rate)
    sound = gain * np.sin(2 * np.pi * frequency * np.arange(samples) / rate)
    return (sound + noise * dice.standard_normal(samples) if noise else sound).astype(np.float32)
