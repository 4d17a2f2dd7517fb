"""`frame_stats` and its gradient of packed frames on a device without the Triton kernels.

`eager` reads the cumulative lengths, and those of a device must not be waited for: here every frame finds its
utterance by an index on the device, at the price of some copies of the frames.
"""

import torch

from framealign.kernels.definition import definition
from framealign.kernels.interface import Found, Gradients, Needs, Outputs, Request, Saved
from framealign.layout import Packed


def forward(request: Request) -> Outputs:
    assert request.cu_seqlens is not None
    outputs = definition(request, Packed(request.frames, request.cu_seqlens))
    if request.attend:
        return outputs
    # An operator's results must not be one tensor, not even an empty one
    return *outputs[:2], request.columns.new_empty(0), request.columns.new_empty(0)


def backward(saved: Saved, gradients: Gradients, needs: Needs) -> Found:
    frames, columns, norms, weights, _, _, cu_seqlens, _, has_logits, _ = saved
    g_dots, g_norms, g_weights, g_pooled = gradients
    assert g_dots is not None
    assert cu_seqlens is not None
    layout, z = Packed(frames, cu_seqlens), frames.to(columns.dtype)
    g_frames = torch.zeros_like(z) if needs.frames else None
    g_logits = z.new_zeros(z.shape[0]) if needs.logits else None
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
    g_columns = torch.zeros_like(columns) if needs.columns else None
    for k in range(columns.shape[1]):  # column by column: all at once would stand beside each frame
        g_dot = g_dots[..., k, None]
        if g_frames is not None:
            g_frames.addcmul_(g_dot, layout.spread(columns[:, k]))
        if g_columns is not None:
            g_columns[:, k] = layout.sum(g_dot * z)
    of_frames = None if g_frames is None else g_frames.to(frames.dtype)
    return of_frames, g_columns, g_logits if needs.logits else None
