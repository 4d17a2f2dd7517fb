"""EAL, the joint objective, and a training step of a head on cached frames:

python benchmarks/bench_losses.py --out benchmarks/results/VERSION-DEVICE-losses.json
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

import framealign
import handwritten
import peers
from common import Candidate, Options, Row, Tensors, Variant, compiled, in_directions, run_benchmarks
from framealign import functional as F
from shapes import CLASSES, Batch


def eal(batch: Batch, options: Options) -> Iterator[Row]:
    mask, inputs = batch.mask, (batch.frames, batch.anchor)
    packed, cu_seqlens = F.pack(batch.frames.detach(), mask)  # as a pipeline does that never pads; not timed
    packed.requires_grad_()

    def padded(results: Tensors) -> Tensors:
        value, *gradients = results
        if not gradients:
            return results
        return value, F.unpack(gradients[0], cu_seqlens, mask.shape[1])[0], gradients[1]

    candidates = [
        Candidate(
            "hand-written",
            "hand-written",
            lambda frames, anchor: handwritten.emotional_attention_loss(frames, anchor, mask),
            inputs,
        ),
        Candidate("ours", "ours", lambda frames, anchor: F.emotional_attention_loss(frames, anchor, mask), inputs),
        Candidate(
            "ours, packed",
            "ours",
            lambda frames, anchor: F.emotional_attention_loss(frames, anchor, cu_seqlens=cu_seqlens),
            (packed, batch.anchor),
            arrange=padded,
        ),
    ]
    if options.compile:
        loss = compiled(handwritten.emotional_attention_loss)
        function = lambda frames, anchor: loss(frames, anchor, mask)  # noqa: E731
        candidates.insert(1, Candidate("compiled", "compiled", function, inputs))
    losses = peers.pytorch_metric_learning_losses()
    if losses is not None:
        cosface = losses.CosFaceLoss(CLASSES, batch.frames.shape[2]).to(options.device)
        frame_labels = batch.labels.repeat_interleave(batch.lengths)
        candidates.append(
            Candidate(
                "CosFace, pytorch-metric-learning",
                "peer",
                lambda frames, _: cosface(frames[mask], frame_labels),
                (batch.frames, cosface.W),
                tolerance=None,
            )
        )
    yield from in_directions("EAL", candidates)


def objective(batch: Batch, options: Options) -> Iterator[Row]:
    mask, labels = batch.mask, batch.labels
    inputs = (batch.frames, batch.anchor, batch.weight, batch.bias)
    classifier = nn.Linear(*reversed(batch.weight.shape)).to(options.device)
    with torch.no_grad():
        classifier.weight.copy_(batch.weight)
        classifier.bias.copy_(batch.bias)
    criterion = framealign.AlignmentObjective()

    def ours(frames: Tensor, anchor: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return F.alignment_objective(frames, anchor, labels, weight, bias, mask).loss

    def in_two_parts(frames: Tensor, anchor: Tensor, *_: Tensor) -> Tensor:
        """For those who pool themselves, or need the pooled vector."""
        weights = F.cls_attention(frames, anchor, mask)
        pooled = framealign.Pooled(handwritten.weighted_sum(weights, frames), weights, frames, anchor)
        return criterion(pooled, labels, classifier, mask).loss

    def by_hand(loss: Callable[..., Tensor]) -> Callable[..., Tensor]:
        return lambda *tensors: loss(*tensors, labels, mask)

    candidates = [
        Candidate("hand-written", "hand-written", by_hand(handwritten.alignment_objective), inputs),
        Candidate("ours", "ours", ours, inputs),
        Candidate(
            "ours, cls_attention then AlignmentObjective",
            "ours",
            in_two_parts,
            (batch.frames, batch.anchor, classifier.weight, classifier.bias),
        ),
    ]
    if options.compile:
        by_compiler = by_hand(compiled(handwritten.alignment_objective))
        candidates.insert(1, Candidate("compiled", "compiled", by_compiler, inputs))
        candidates.insert(3, Candidate("ours, compiled", "ours", compiled(ours), inputs))
    yield from in_directions("objective", candidates)


def training_step(batch: Batch, options: Options) -> Iterator[Row]:
    """A learned query is every utterance's anchor; frames come from a cache and need no gradient."""
    frames, labels, mask = batch.frames.detach(), batch.labels, batch.mask

    def ours(query: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        anchor = query.expand(len(frames), -1)
        return F.alignment_objective(frames, anchor, labels, weight, bias, mask).loss

    def by_hand(query: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        anchor = query.expand(len(frames), -1)
        return handwritten.alignment_objective(frames, anchor, weight, bias, labels, mask)

    def step_of(loss_of: Callable[..., Tensor]) -> Callable[[], Tensors]:
        parameters = [batch.anchor[0], batch.weight, batch.bias]
        parameters = [tensor.detach().clone().requires_grad_() for tensor in parameters]
        optimizer = torch.optim.AdamW(parameters, lr=1e-4)

        def step() -> Tensors:
            loss = loss_of(*parameters)
            loss.backward()
            optimizer.step()
            gradients = [parameter.grad for parameter in parameters]
            optimizer.zero_grad()
            return loss.detach(), *gradients

        return step

    variants = [
        Variant("hand-written", "hand-written", step_of(by_hand)),
        Variant("ours", "ours", step_of(ours)),
    ]
    if options.compile:
        variants.insert(1, Variant("compiled", "compiled", step_of(compiled(by_hand))))
        variants.append(Variant("ours, compiled", "ours", step_of(compiled(ours))))
    yield Row("training step", "step", variants)


if __name__ == "__main__":
    operations = {"EAL": eal, "objective": objective, "training step": training_step}
    run_benchmarks(operations, __doc__, swept=("EAL", "objective"))
