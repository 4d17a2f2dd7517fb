"""`frame_stats` and its gradient in PyTorch: the path of the CPU, and of a device without the Triton kernels."""

import torch

from framealign.kernels.groups import Batch
from framealign.kernels.interface import Found, Gradients, Needs, Outputs, Request, Saved
from framealign.masking import fill_padding, masked_softmax


def forward(request: Request) -> Outputs:
    frames, columns, logits, mask, cu_seqlens, attend, norms, _ = request
    has_columns = columns.shape[1] > 0
    batch = Batch(frames, mask, cu_seqlens, columns.dtype, reads=has_columns + norms + attend)
    dots = batch.per_frame(columns.shape[1])
    lengths = batch.per_frame() if norms else columns.new_empty(0)
    weights_are_known = attend and logits is not None and cu_seqlens is None  # before any frame is read
    if logits is not None and weights_are_known:
        weights = masked_softmax(logits, mask)
    else:
        weights = batch.per_frame() if attend else columns.new_empty(0)
    pooled = columns.new_zeros((batch.size, frames.shape[-1]) if attend else 0)
    for group in batch.groups_to_sum() if attend else batch.groups_to_map():
        if has_columns:
            # Columns first: with the frames as the first factor some CPUs reach an eighth of the memory's speed
            products = columns[group.utterances].bmm(group.frames.transpose(1, 2))
            batch.put(dots, group, products.transpose(1, 2))
        if norms:
            batch.put(lengths, group, torch.linalg.vector_norm(group.frames, dim=2))
        if attend:
            if weights_are_known:
                shares = batch.take(weights, group)
            else:
                shares = masked_softmax(products[:, -1] if logits is None else batch.take(logits, group), group.mask)
                batch.put(weights, group, shares)
            pooled[group.utterances] = batch.sum(shares[:, None], group).squeeze(1)
    # What was computed of padding is written over
    if norms:
        lengths = fill_padding(lengths, mask, 0.0)
    return fill_padding(dots, mask, 0.0), lengths, weights, pooled


def backward(saved: Saved, gradients: Gradients, needs: Needs) -> Found:
    r"""The low-rank update $\nabla z_t = \sum_k g_{tk} A_k + \frac{g_t}{|z_t|} z_t + a_t\,\nabla u$, written once."""
    frames, columns, norms, weights, pooled, mask, cu_seqlens, attend, has_logits, _ = saved
    g_dots, g_norms, g_weights, g_pooled = gradients
    assert g_dots is not None
    batch = Batch(frames, mask, cu_seqlens, columns.dtype)
    same_dtype = frames.dtype == columns.dtype
    g_dots = fill_padding(g_dots, mask, 0.0)
    if g_norms is not None:
        scale = (g_norms / norms).masked_fill(norms == 0, 0.0)[..., None]
    no_weight_learns = g_pooled is None or (has_logits and not needs.logits)
    if no_weight_learns and not needs.columns and g_norms is None and same_dtype and cu_seqlens is None:
        # As for a mean: the gradient does not depend on the frames, and they are not read
        update, rows = (g_dots, columns)
        if g_pooled is not None:
            update, rows = torch.cat([g_dots, weights[..., None]], dim=2), torch.cat([rows, g_pooled[:, None]], dim=1)
        return batch.written(update.bmm(rows), rows) if needs.frames else None, None, None
    g_frames = frames.new_empty(frames.shape) if needs.frames else None
    g_columns = torch.zeros_like(columns) if needs.columns else None
    g_logits = batch.per_frame() if needs.logits else None
    for group in batch.groups(into=g_frames if same_dtype else None):
        update, rows = batch.take(g_dots, group), columns[group.utterances]
        if g_weights is not None and g_pooled is not None:
            share, g_share = batch.take(weights, group), batch.take(g_weights, group)
            g_utterance = g_pooled[group.utterances][:, None]
            # A softmax: what a frame's weight gains, less what all frames gain; sum_t a_t z_t is known
            gain = g_share + g_utterance.bmm(group.frames.transpose(1, 2)).squeeze(1)
            average = (pooled[group.utterances][:, None] * g_utterance).sum(dim=2)
            g_scores = share * (gain - average - (share * g_share).sum(dim=1, keepdim=True))
            if g_logits is not None:
                batch.put(g_logits, group, g_scores)
            elif not has_logits:
                update = torch.cat([update[..., :-1], update[..., -1:] + g_scores[..., None]], dim=2)
        if g_columns is not None:
            g_columns[group.utterances] = update.transpose(1, 2).bmm(group.frames)
        if g_frames is not None:
            if attend:
                update, rows = torch.cat([update, share[..., None]], dim=2), torch.cat([rows, g_utterance], dim=1)
            in_place = group.segments is None and same_dtype
            target = g_frames[group.utterances] if in_place else group.frames  # else a copy, of no more use
            if g_norms is not None:
                torch.mul(group.frames, batch.take(scale, group), out=target).baddbmm_(update, rows)
            else:
                torch.bmm(update, rows, out=target)
            if not in_place:
                batch.put_frames(g_frames, group, target)
    if g_frames is not None and batch.trims:
        batch.clear_padding(g_frames)
    elif g_frames is not None:
        batch.written(g_frames, columns if g_pooled is None else torch.cat([columns, g_pooled[:, None]], dim=1))
    return g_frames, g_columns, g_logits
