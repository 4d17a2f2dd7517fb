"""The kernels of `triton_frame_stats`, which launches them: forward and backward each read the frames once.

A program takes a chunk of one utterance's time and walks through it a tile of frames at a time. What sums over
the whole utterance leaves the program as a partial result, and a second, small kernel adds those in a fixed
order: there are no atomics, so equal inputs give equal bits. The softmax is the online one: each partial sum is
relative to the maximum of its chunk.

Indices are int64 wherever they are multiplied by a stride or a size. Padding is never read.
"""

# mypy: disable-error-code="no-untyped-def,untyped-decorator,no-untyped-call,assignment,import-not-found,import-untyped"
# (what a kernel is called with has no type in Python)

import torch
import triton
import triton.language as tl

_LOWEST = tl.constexpr(torch.finfo(torch.float32).min)
# Compiled once, whatever these are: they come with the batch, and no access of a frame is the wider for knowing them
_SIZES = ["batch", "time", "chunks"]


@triton.jit
def _rows_of(utterance, time, cu_seqlens):
    """First row of an utterance in tensors of one row for each frame, and its length."""
    if cu_seqlens is None:
        return utterance * time, time
    else:
        first = tl.load(cu_seqlens + utterance).to(tl.int64)
        return first, tl.load(cu_seqlens + utterance + 1).to(tl.int64) - first


@triton.jit
def _programs_of(utterance, chunks, offsets):
    """The programs that took the chunks of an utterance, from the first to the one after the last."""
    if offsets is None:
        return utterance * chunks, utterance * chunks + chunks
    else:
        return tl.load(offsets + utterance), tl.load(offsets + utterance + 1)


@triton.jit
def _utterance_of(program, chunks, segments):
    if segments is None:
        return program // chunks
    else:
        return tl.load(segments + program)


@triton.jit
def _real(mask, rows, inside):
    if mask is None:
        return inside
    else:
        return tl.load(mask + rows, mask=inside, other=0) != 0


@triton.jit
def _load_tile(pointers, real, within):
    return tl.load(pointers, mask=real[:, None] & within[None, :], other=0.0).to(tl.float32)


@triton.jit
def _column(pointer, d, within):
    return tl.load(pointer + d[None, :], mask=within[None, :], other=0.0)


@triton.jit
def _held(pointer, dim, d, within, K: tl.constexpr, HOLD: tl.constexpr):
    """The columns of an utterance, in registers for all of its frames."""
    columns = ()
    if HOLD:
        for k in tl.static_range(K):
            columns += (_column(pointer + k * dim, d, within),)
    return columns


@triton.jit
def _dot(z, column, real):
    # Written over, since an infinite column times the zeros of the padding is nan
    return tl.where(real, tl.sum(z * column, axis=1), 0.0)


@triton.jit
def _rescale(old, new):
    """Factor from sums relative to one maximum to sums relative to another; both may be -inf."""
    return tl.where(old == new, 1.0, tl.exp(old - new))


@triton.jit(do_not_specialize=_SIZES)
def forward_kernel(
    frames, columns, logits, mask, cu_seqlens, segments, offsets,
    dots, norms, maxima, totals, pooled,
    batch, time, chunks, dim, stride_b, stride_t, stride_d,
    K: tl.constexpr, CHUNK: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_D: tl.constexpr,
    HOLD: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0).to(tl.int64)
    utterance = _utterance_of(program, chunks, segments)
    if utterance >= batch:  # the grid of a packed batch is as large as its chunks can be, not as they are
        return
    origin, length = _rows_of(utterance, time, cu_seqlens)
    begin = (program - _programs_of(utterance, chunks, offsets)[0]) * CHUNK
    end = tl.minimum(begin + CHUNK, length)

    if mask is not None:
        chunk = begin + tl.arange(0, CHUNK)
        in_time = chunk < end
        if tl.max(_real(mask, origin + chunk, in_time).to(tl.int32), axis=0) == 0:
            for k in tl.static_range(K):
                tl.store(dots + (origin + chunk) * K + k, 0.0, mask=in_time)
            if norms is not None:
                tl.store(norms + origin + chunk, 0.0, mask=in_time)
            if maxima is not None:
                tl.store(maxima + program, float("-inf"))
                tl.store(totals + program, 0.0)
            return

    d = tl.arange(0, BLOCK_D)
    within = d < dim
    start_of_frames = frames + (utterance * stride_b if cu_seqlens is None else origin * stride_t)
    maximum = float("-inf")
    total = 0.0
    accumulator = tl.zeros((BLOCK_D,), tl.float32)
    held = _held(columns + utterance * K * dim, dim, d, within, K, HOLD)
    for start in tl.range(begin, end, BLOCK_T, num_stages=STAGES):
        steps = start + tl.arange(0, BLOCK_T).to(tl.int64)
        inside = steps < end
        rows = origin + steps
        real = _real(mask, rows, inside)
        z = _load_tile(start_of_frames + steps[:, None] * stride_t + d.to(tl.int64)[None, :] * stride_d, real, within)
        if norms is not None:
            tl.store(norms + rows, tl.sqrt_rn(tl.sum(z * z, axis=1)), mask=inside)
        dot = tl.zeros((BLOCK_T,), tl.float32)
        if HOLD:
            for k in tl.static_range(K):
                dot = _dot(z, held[k], real)
                tl.store(dots + rows * K + k, dot, mask=inside)
        else:
            for k in range(K):
                dot = _dot(z, _column(columns + (utterance * K + k) * dim, d, within), real)
                tl.store(dots + rows * K + k, dot, mask=inside)
        if maxima is not None:
            if logits is None:
                logit = dot
            else:
                logit = tl.load(logits + rows, mask=real, other=0.0)
            # -inf marks a chunk without real frames; one whose logits are -inf has the lowest finite maximum
            # (compared: whether a maximum with nan is nan differs between versions; the share below is, in all of them)
            finite = tl.where(logit > _LOWEST, logit, _LOWEST)
            highest = tl.max(tl.where(real, finite, float("-inf")), axis=0)
            new_maximum = tl.maximum(maximum, highest)
            scale = _rescale(maximum, new_maximum)
            share = tl.where(real, tl.exp(logit - new_maximum), 0.0)
            total = total * scale + tl.sum(share, axis=0)
            accumulator = accumulator * scale + tl.sum(share[:, None] * z, axis=0)
            maximum = new_maximum
    if maxima is not None:
        tl.store(maxima + program, maximum)
        tl.store(totals + program, total)
        tl.store(pooled + program * dim + d, accumulator, mask=within)


@triton.jit(do_not_specialize=_SIZES)
def combine_kernel(
    maxima, totals, partial_pooled, logits, stride_logits, mask, cu_seqlens, offsets, weights, pooled,
    time, chunks, dim, blocks,
    BLOCK_P: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_T: tl.constexpr,
):  # fmt: skip
    """The partial results of an utterance's chunks: a block of its pooled vector, and a share of its weights."""
    utterance = tl.program_id(0).to(tl.int64) // blocks
    block = tl.program_id(0).to(tl.int64) % blocks
    origin, length = _rows_of(utterance, time, cu_seqlens)
    first, last = _programs_of(utterance, chunks, offsets)

    maximum = float("-inf")
    for start in range(first, last, BLOCK_P):
        programs = start + tl.arange(0, BLOCK_P)
        part = tl.load(maxima + programs, mask=programs < last, other=float("-inf"))
        maximum = tl.maximum(maximum, tl.max(part, axis=0))
    d = block * BLOCK_D + tl.arange(0, BLOCK_D)
    total = 0.0
    accumulator = tl.zeros((BLOCK_D,), tl.float32)
    for start in range(first, last, BLOCK_P):
        programs = start + tl.arange(0, BLOCK_P)
        part = tl.load(maxima + programs, mask=programs < last, other=float("-inf"))
        filled = part != float("-inf")  # a chunk without real frames left no pooled vector
        scale = tl.where(filled, _rescale(part, maximum), 0.0)
        total += tl.sum(tl.load(totals + programs, mask=filled, other=0.0) * scale, axis=0)
        inside = filled[:, None] & (d < dim)[None, :]
        vectors = tl.load(partial_pooled + programs[:, None] * dim + d[None, :], mask=inside, other=0.0)
        accumulator += tl.sum(vectors * scale[:, None], axis=0)
    has_frames = maximum != float("-inf")
    tl.store(pooled + utterance * dim + d, tl.where(has_frames, accumulator / total, 0.0), mask=d < dim)

    for start in range(block * BLOCK_T, length, blocks * BLOCK_T):
        steps = start + tl.arange(0, BLOCK_T)
        inside = steps < length
        rows = origin + steps
        real = _real(mask, rows, inside)
        logit = tl.load(logits + rows * stride_logits, mask=real, other=0.0)
        tl.store(weights + rows, tl.where(real, tl.exp(logit - maximum) / total, 0.0), mask=inside)


@triton.jit(do_not_specialize=_SIZES)
def center_kernel(
    g_weights, g_pooled, weights, pooled, mask, cu_seqlens, center, time, dim,
    BLOCK_T: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """What the softmax takes off the gradient of every weight: their mean, by weight."""
    utterance = tl.program_id(0).to(tl.int64)
    origin, length = _rows_of(utterance, time, cu_seqlens)
    total = tl.zeros((1,), tl.float32)
    if g_weights is not None:
        for start in range(0, length, BLOCK_T):
            steps = start + tl.arange(0, BLOCK_T)
            real = _real(mask, origin + steps, steps < length)
            weight = tl.load(weights + origin + steps, mask=real, other=0.0)
            total += tl.sum(weight * tl.load(g_weights + origin + steps, mask=real, other=0.0), axis=0)
    if g_pooled is not None:
        for start in range(0, dim, BLOCK_D):
            d = start + tl.arange(0, BLOCK_D)
            value = tl.load(pooled + utterance * dim + d, mask=d < dim, other=0.0)
            total += tl.sum(value * tl.load(g_pooled + utterance * dim + d, mask=d < dim, other=0.0), axis=0)
    tl.store(center + utterance + tl.arange(0, 1), total)


@triton.jit
def _to_dot(g_dots, to_last, rows, real, k, K: tl.constexpr):
    """Gradient of the dot products with column k, of which the last may hold the logits."""
    gradient = tl.where(k == K - 1, to_last, 0.0)
    if g_dots is not None:
        gradient += tl.load(g_dots + rows * K + k, mask=real, other=0.0)
    return gradient


@triton.jit(do_not_specialize=_SIZES)
def backward_kernel(
    g_dots, g_norms, g_weights, g_pooled, center,
    frames, columns, norms, weights, mask, cu_seqlens, segments, offsets,
    g_frames, g_columns, filled, g_logits,
    batch, time, chunks, dim, stride_b, stride_t, stride_d,
    K: tl.constexpr, CHUNK: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_D: tl.constexpr,
    HOLD: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0).to(tl.int64)
    utterance = _utterance_of(program, chunks, segments)
    if utterance >= batch:
        return
    origin, length = _rows_of(utterance, time, cu_seqlens)
    begin = (program - _programs_of(utterance, chunks, offsets)[0]) * CHUNK
    end = tl.minimum(begin + CHUNK, length)
    d = tl.arange(0, BLOCK_D)
    within = d < dim

    if mask is not None:
        chunk = begin + tl.arange(0, CHUNK)
        in_time = chunk < end
        if tl.max(_real(mask, origin + chunk, in_time).to(tl.int32), axis=0) == 0:
            if g_frames is not None:
                for first in range(begin, end, BLOCK_T):
                    tile = first + tl.arange(0, BLOCK_T)
                    zeros = tl.zeros((BLOCK_T, BLOCK_D), g_frames.dtype.element_ty)
                    outer = (tile < end)[:, None] & within[None, :]
                    tl.store(g_frames + (origin + tile)[:, None] * dim + d[None, :], zeros, mask=outer)
            if g_logits is not None:
                tl.store(g_logits + origin + chunk, 0.0, mask=in_time)
            if filled is not None:
                tl.store(filled + program, 0)
            return

    if g_pooled is not None:
        to_pooled = tl.load(g_pooled + utterance * dim + d[None, :], mask=within[None, :], other=0.0)
    if center is not None:
        middle = tl.load(center + utterance)
    start_of_frames = frames + (utterance * stride_b if cu_seqlens is None else origin * stride_t)
    sums = ()
    if g_columns is not None:
        for _ in tl.static_range(K):
            # A tile of few dimensions has its frames in several threads, which would have to meet in each tile
            sums += (tl.zeros((BLOCK_D,) if HOLD else (BLOCK_T, BLOCK_D), tl.float32),)
    held = ()
    if g_frames is not None:
        held = _held(columns + utterance * K * dim, dim, d, within, K, HOLD)
    for start in tl.range(begin, end, BLOCK_T, num_stages=STAGES):
        steps = start + tl.arange(0, BLOCK_T).to(tl.int64)
        inside = steps < end
        rows = origin + steps
        real = _real(mask, rows, inside)
        z = _load_tile(start_of_frames + steps[:, None] * stride_t + d.to(tl.int64)[None, :] * stride_d, real, within)
        gradient = tl.zeros((BLOCK_T, BLOCK_D), tl.float32)
        to_last = tl.zeros((BLOCK_T,), tl.float32)
        if center is not None:
            weight = tl.load(weights + rows, mask=real, other=0.0)
            slope = tl.zeros((BLOCK_T,), tl.float32) - middle
            if g_weights is not None:
                slope += tl.load(g_weights + rows, mask=real, other=0.0)
            if g_pooled is not None:
                slope += tl.sum(z * to_pooled, axis=1)
                gradient += weight[:, None] * to_pooled
            to_logit = tl.where(real, weight * slope, 0.0)
            if g_logits is None:
                to_last = to_logit
            else:
                tl.store(g_logits + rows, to_logit, mask=inside)
        if g_norms is not None:
            norm = tl.load(norms + rows, mask=real, other=0.0)
            to_norm = tl.load(g_norms + rows, mask=real, other=0.0)
            gradient += tl.where(norm == 0.0, 0.0, to_norm / norm)[:, None] * z
        if g_columns is not None:
            new_sums = ()
            for k in tl.static_range(K):
                to_dot = _to_dot(g_dots, to_last, rows, real, k, K)
                part = to_dot[:, None] * z
                new_sums += (sums[k] + (tl.sum(part, axis=0) if HOLD else part),)
            sums = new_sums
        if g_frames is not None:
            if HOLD:
                for k in tl.static_range(K):
                    gradient += _to_dot(g_dots, to_last, rows, real, k, K)[:, None] * held[k]
            else:
                # Not unrolled: the compiler would fetch all columns at once, into registers that the sums need
                for k in range(K):
                    column = _column(columns + (utterance * K + k) * dim, d, within)
                    gradient += _to_dot(g_dots, to_last, rows, real, k, K)[:, None] * column
            gradient = tl.where(real[:, None], gradient, 0.0).to(g_frames.dtype.element_ty)
            tl.store(g_frames + rows[:, None] * dim + d[None, :], gradient, mask=inside[:, None] & within[None, :])
    if g_columns is not None:
        tl.store(filled + program, 1)
        for k in tl.static_range(K):
            tl.store(g_columns + (program * K + k) * dim + d, sums[k] if HOLD else tl.sum(sums[k], axis=0), mask=within)


@triton.jit(do_not_specialize=_SIZES)
def sum_kernel(partials, filled, offsets, total, chunks, size, blocks, BLOCK_P: tl.constexpr, BLOCK: tl.constexpr):
    """Sum the vectors that the chunks of an utterance left."""
    utterance = tl.program_id(0).to(tl.int64) // blocks
    block = tl.program_id(0).to(tl.int64) % blocks
    first, last = _programs_of(utterance, chunks, offsets)
    i = block * BLOCK + tl.arange(0, BLOCK)
    accumulator = tl.zeros((BLOCK,), tl.float32)
    for start in range(first, last, BLOCK_P):
        programs = start + tl.arange(0, BLOCK_P)
        there = tl.load(filled + programs, mask=programs < last, other=0) != 0
        pointers = partials + programs[:, None] * size + i[None, :]
        accumulator += tl.sum(tl.load(pointers, mask=there[:, None] & (i < size)[None, :], other=0.0), axis=0)
    tl.store(total + utterance * size + i, accumulator, mask=i < size)
