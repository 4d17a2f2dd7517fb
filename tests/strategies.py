"""Hypothesis strategies: masks of any shape and pattern, seeds, and batches whose padding holds junk."""

from collections.abc import Mapping

import torch
from hypothesis import strategies as st
from torch import Tensor

from cases import frame_inputs

seeds = st.integers(0, 2**31)
full_precision = st.sampled_from([torch.float32, torch.float64])
half_precision = st.sampled_from([torch.float16, torch.bfloat16])


@st.composite
def masks(draw: st.DrawFn, min_batch: int = 0, min_time: int = 0) -> Tensor:
    """(0..4, 0..6) bool with holes, empty utterances, no time and no batch among them."""
    batch, time = draw(st.integers(min_batch, 4)), draw(st.integers(min_time, 6))
    rows = st.lists(st.booleans(), min_size=time, max_size=time)
    values = draw(st.lists(rows, min_size=batch, max_size=batch))
    return torch.tensor(values, dtype=torch.bool).reshape(batch, time)


def with_junk(inputs: Mapping[str, Tensor], mask: Tensor, seed: int) -> dict[str, Tensor]:
    """The same batch with nan, infinities, and huge and tiny numbers in the padding."""
    generator = torch.Generator().manual_seed(seed)
    junk = torch.tensor([torch.nan, torch.inf, -torch.inf, 6e4, -6e4, 1e-7])
    result = dict(inputs)
    for name in frame_inputs(inputs):
        values = inputs[name].detach().clone()
        picks = torch.randint(len(junk), values[~mask].shape, generator=generator)
        values[~mask] = junk[picks].to(values.dtype)
        result[name] = values.requires_grad_()
    return result
