"""`frame_stats` and its gradient of packed frames on a device without the Triton kernels.

`eager` reads the cumulative lengths, and those of a device must not be waited for: here every frame finds its
utterance by an index on the device, at the price of some copies of the frames.
"""

import torch
from torch import Tensor

from framealign.kernels import plain
from framealign.layout import Packed


def forward(
    frames: Tensor,
    columns: Tensor,
    logits: Tensor | None,
    mask: None,
    cu_seqlens: Tensor,
    attend: bool,
    norms: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    layout = Packed(frames, cu_seqlens)
    dots, lengths, weights, vectors = plain.frame_stats(frames, columns, logits, layout, attend, norms)
    if not attend:  # an operator's results must not be one tensor, not even an empty one
        weights, vectors = columns.new_empty(0), columns.new_empty(0)
    return dots, lengths, weights, vectors


def backward(
    g_dots: Tensor,
    g_norms: Tensor | None,
    g_weights: Tensor | None,
    g_pooled: Tensor | None,
    frames: Tensor,
    columns: Tensor,
    norms: Tensor,
    weights: Tensor,
    pooled: Tensor,
    mask: None,
    cu_seqlens: Tensor,
    attend: bool,
    has_logits: bool,
    needs_frames: bool,
    needs_columns: bool,
    needs_logits: bool,
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    layout, z = Packed(frames, cu_seqlens), frames.to(columns.dtype)
    g_frames = torch.zeros_like(z) if needs_frames else None
    g_logits = z.new_zeros(z.shape[0]) if needs_logits else None
    if g_weights is not None and g_pooled is not None:
        to_pooled = layout.spread(g_pooled)
        # A softmax: what a frame's weight gains, less what all frames gain
        gain = g_weights + (z * to_pooled).sum(dim=-1)
        g_logits = weights * (gain - layout.spread(layout.sum(weights * gain)))
        if not has_logits:
            g_dots = torch.cat([g_dots[..., :-1], (g_dots[..., -1] + g_logits)[..., None]], dim=-1)
        if g_frames is not None:
            g_frames.addcmul_(weights[..., None], to_pooled)
    if g_frames is not None and g_norms is not None:
        g_frames.addcmul_((g_norms / norms).masked_fill(norms == 0, 0.0)[..., None], z)
    g_columns = torch.zeros_like(columns) if needs_columns else None
    for k in range(columns.shape[1]):  # column by column: all at once would stand beside each frame
        g_dot = g_dots[..., k, None]
        if g_frames is not None:
            g_frames.addcmul_(g_dot, layout.spread(columns[:, k]))
        if g_columns is not None:
            g_columns[:, k] = layout.sum(g_dot * z)
    of_frames = None if g_frames is None else g_frames.to(frames.dtype)
    return of_frames, g_columns, g_logits if needs_logits else None
