"""Poolings: mean, statistics, attention, and a CLS token behind a Transformer layer:

python benchmarks/bench_poolings.py --out benchmarks/results/VERSION-DEVICE-poolings.json
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

import framealign
import handwritten
import peers
from common import Candidate, Options, Role, Row, compiled, in_directions, run_benchmarks
from framealign import functional as F
from shapes import Batch

# s3prl and speechbrain divide the variance by n - 1, and speechbrain adds noise of up to 1e-4 to the mean
OTHER_DEVIATION = 0.1


class Candidates(list[Candidate]):
    """With the frames as first tensor, and utterance vectors as the outcome."""

    def __init__(self, batch: Batch, options: Options, width: int = 1) -> None:
        size = batch.frames.shape[0], width * batch.frames.shape[2]
        self.seed = torch.linspace(-1, 1, size[0] * size[1], device=options.device).view(size)
        self.batch, self.options = batch, options

    def add(self, name: str, role: Role, function: Callable[..., Tensor], *parameters: Tensor, **fields: float) -> None:
        self.append(Candidate(name, role, function, (self.batch.frames, *parameters), self.seed, **fields))

    def add_by_hand(self, function: Callable[..., Tensor], *parameters: Tensor) -> None:
        """Eager, and compiled; the mask comes last."""
        mask = self.batch.mask
        self.add("hand-written", "hand-written", lambda *tensors: function(*tensors, mask), *parameters)
        if self.options.compile:
            by_compiler = compiled(function)
            self.add("compiled", "compiled", lambda *tensors: by_compiler(*tensors, mask), *parameters)


def mean(batch: Batch, options: Options) -> Iterator[Row]:
    candidates, module = Candidates(batch, options), framealign.MeanPooling()
    candidates.add_by_hand(handwritten.mean_pooling)
    candidates.add("ours, embed", "ours", lambda frames: module.embed(frames, batch.mask))
    candidates.add("ours", "ours", lambda frames: module(frames, batch.mask).utterance)
    if (s3prl := peers.s3prl_pooling()) is not None:
        theirs = s3prl.MeanPooling(batch.frames.shape[2])
        candidates.add("s3prl", "peer", lambda frames: theirs(frames, batch.lengths))
    if not too_slow(batch, options) and (speechbrain := peers.speechbrain_pooling()) is not None:
        noisy, shares = speechbrain.StatisticsPooling(return_std=False), relative_lengths(batch)
        candidates.add("speechbrain", "peer", lambda frames: noisy(frames, shares).squeeze(1), tolerance=1e-2)
    yield from in_directions("mean pooling", candidates)


def statistics(batch: Batch, options: Options) -> Iterator[Row]:
    candidates, module = Candidates(batch, options, width=2), framealign.StatisticsPooling()
    candidates.add_by_hand(handwritten.statistics_pooling)
    candidates.add("ours, embed", "ours", lambda frames: module.embed(frames, batch.mask))
    candidates.add("ours", "ours", lambda frames: module(frames, batch.mask).utterance)
    if (s3prl := peers.s3prl_pooling()) is not None:
        theirs = s3prl.TemporalStatisticsPooling(batch.frames.shape[2])
        candidates.add("s3prl", "peer", lambda frames: theirs(frames, batch.lengths), tolerance=OTHER_DEVIATION)
    if not too_slow(batch, options) and (speechbrain := peers.speechbrain_pooling()) is not None:
        noisy, shares = speechbrain.StatisticsPooling(), relative_lengths(batch)
        candidates.add(
            "speechbrain", "peer", lambda frames: noisy(frames, shares).squeeze(1), tolerance=OTHER_DEVIATION
        )
    yield from in_directions("statistics pooling", candidates)


def relative_lengths(batch: Batch) -> Tensor:
    """As speechbrain wants them."""
    return batch.lengths / batch.frames.shape[1]


def attentive(batch: Batch, options: Options) -> Iterator[Row]:
    candidates, mask = Candidates(batch, options), batch.mask
    module = framealign.AttentivePooling(batch.frames.shape[2], hidden_dim=None).to(options.device)
    (score,) = module.parameters()
    candidates.add_by_hand(handwritten.attentive_pooling, score)
    candidates.add("ours, embed", "ours", lambda frames, _: module.embed(frames, mask), score)
    candidates.add("ours", "ours", lambda frames, _: module(frames, mask).utterance, score)
    candidates.add(
        "ours, functional",
        "ours",
        lambda frames, score: F.attentive_pooling(frames, nn.functional.linear(frames, score).squeeze(-1), mask)[0],
        score,
    )
    yield from in_directions("attentive pooling", candidates)


def hidden_attentive(batch: Batch, options: Options) -> Iterator[Row]:
    candidates, dim = Candidates(batch, options), batch.frames.shape[2]
    module = framealign.AttentivePooling(dim, hidden_dim=dim).to(options.device)
    project, bias, score = module.parameters()
    candidates.add_by_hand(handwritten.hidden_attentive_pooling, project, bias, score)
    candidates.add("ours", "ours", lambda frames, *_: module(frames, batch.mask).utterance, project, bias, score)
    if (s3prl := peers.s3prl_pooling()) is not None:
        theirs = s3prl.SelfAttentivePooling(dim).to(options.device)
        with torch.no_grad():
            theirs.sap_linear.weight.copy_(project)
            theirs.sap_linear.bias.copy_(bias)
            theirs.attention.copy_(score.T)
        parameters = theirs.sap_linear.weight, theirs.sap_linear.bias, theirs.attention
        candidates.add("s3prl", "peer", lambda frames, *_: theirs(frames, batch.lengths), *parameters)
    yield from in_directions("attentive pooling, hidden layer", candidates)


def cls_pooling(batch: Batch, options: Options) -> Iterator[Row]:
    if too_slow(batch, options):
        return
    candidates, dim = Candidates(batch, options), batch.frames.shape[2]
    by_hand = handwritten.CLSPooling(dim).to(options.device).eval()
    module = framealign.CLSSelfAttentionPooling(dim).to(options.device).eval()
    parameters = copy_parameters(by_hand, module)
    theirs, ours = tuple(parameters), tuple(parameters.values())
    candidates.add("hand-written", "hand-written", lambda frames, *_: by_hand(frames, batch.mask), *theirs)
    if options.compile:
        by_compiler = compiled(by_hand)
        candidates.add("compiled", "compiled", lambda frames, *_: by_compiler(frames, batch.mask), *theirs)
    candidates.add("ours", "ours", lambda frames, *_: module(frames, batch.mask).utterance, *ours)
    yield from in_directions("CLS pooling", candidates)


def cls_output(batch: Batch, options: Options) -> Iterator[Row]:
    """Nothing but the encoded CLS is asked for, as when a trained model is applied."""
    if too_slow(batch, options):
        return
    candidates, dim = Candidates(batch, options), batch.frames.shape[2]
    by_hand = handwritten.CLSEncoder(dim).to(options.device).eval()
    module = framealign.CLSSelfAttentionPooling(dim, aggregate="cls").to(options.device).eval()
    copy_parameters(by_hand, module)
    candidates.add("hand-written", "hand-written", lambda frames: by_hand(frames, batch.mask)[:, 0])
    if options.compile:
        by_compiler = compiled(by_hand)
        candidates.add("compiled", "compiled", lambda frames: by_compiler(frames, batch.mask)[:, 0])
    candidates.add("ours, embed", "ours", lambda frames: module.embed(frames, batch.mask))
    candidates.add("ours, forward", "ours", lambda frames: module(frames, batch.mask).utterance)
    yield from in_directions("CLS output alone", candidates, ["forward"])


def too_slow(batch: Batch, options: Options) -> bool:
    """The large shape on a CPU, where one call would take a minute or more (an estimate)."""
    return options.device.type == "cpu" and batch.frames.numel() > 10**8


def copy_parameters(by_hand: nn.Module, module: nn.Module) -> dict[nn.Parameter, nn.Parameter]:
    """Give the module the parameters of the other, and tell which belong together."""
    names = {
        "attention.project_in": "self_attn.in_proj",
        "attention.project_out": "self_attn.out_proj",
        "attention_norm": "norm1",
        "feedforward.0": "linear1",
        "feedforward.3": "linear2",
        "feedforward_norm": "norm2",
    }
    theirs, pairs = dict(by_hand.named_parameters()), {}
    for name, parameter in module.named_parameters():
        part, _, kind = name.removeprefix("encoder.layers.0.").rpartition(".")
        if part:
            joint = "_" if part == "attention.project_in" else "."
            pairs[theirs[f"layer.{names[part]}{joint}{kind}"]] = parameter
        else:
            pairs[theirs[name]] = parameter
    with torch.no_grad():
        for source, target in pairs.items():
            target.copy_(source)
    return pairs


if __name__ == "__main__":
    operations = {
        "mean pooling": mean,
        "statistics pooling": statistics,
        "attentive pooling": attentive,
        "attentive pooling, hidden layer": hidden_attentive,
        "CLS pooling": cls_pooling,
        "CLS output alone": cls_output,
    }
    run_benchmarks(operations, __doc__, swept=("attentive pooling",))
