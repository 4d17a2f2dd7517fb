"""What every pooling returns."""

from typing import NamedTuple

from torch import Tensor


class Pooled(NamedTuple):
    """One utterance vector, and the frames and weights behind it.

    Attributes:
        utterance: (batch, output_dim), the pooled vector; 0 for an utterance without real frames.
        weights: (batch, time), float32 at least: the frames' shares, at least 0, sum 1 over real frames,
            exactly 0 on padding.
        frames: (batch, time, dim), the frames that were pooled, encoded where the pooling has an encoder;
            0 on padding.
        cls: (batch, dim), the CLS output, or None for a pooling without CLS.

    Of packed frames, weights are (frames,) and frames (frames, dim).
    """

    utterance: Tensor
    weights: Tensor
    frames: Tensor
    cls: Tensor | None


def check_pooled(pooled: Pooled) -> None:
    if not isinstance(pooled, Pooled):
        raise TypeError(f"`pooled` must be the Pooled that a pooling returns, got {type(pooled).__name__}.")


def known_width(module_name: str, dim: int | None) -> int:
    """The width a parameter-free pooling was told, for its `output_dim`."""
    if dim is None:
        raise RuntimeError(
            f"`output_dim` of {module_name}() is not known: a pooling without parameters takes frames of any "
            f"width; build it as {module_name}(dim) to fix one."
        )
    return dim
