"""How much of a training step of wav2vec 2.0 the pooling and the losses are, written by hand and fused:

python benchmarks/share_of_step.py

A wav2vec2-base of random weights (time does not depend on them), CNN frozen, forward and backward; no optimizer.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from transformers import Wav2Vec2Config, Wav2Vec2Model

import handwritten
from framealign.functional import alignment_objective


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()

    torch.manual_seed(0)
    model = Wav2Vec2Model(Wav2Vec2Config())
    model.freeze_feature_encoder()
    waveforms = torch.randn(arguments.clips, int(16_000 * arguments.seconds))
    labels = torch.arange(arguments.clips) % 4

    def encode() -> Tensor:
        frames = model(waveforms).last_hidden_state
        frames.sum().backward()
        return frames.detach().requires_grad_()

    frames = encode()
    mask = torch.ones(frames.shape[:2], dtype=torch.bool)
    cls, weight, bias = (torch.randn(*size, requires_grad=True) for size in ((len(frames), 768), (4, 768), (4,)))

    def by_hand() -> None:
        handwritten.alignment_objective(frames, cls, weight, bias, labels, mask).backward()

    def fused() -> None:
        alignment_objective(frames, cls, labels, weight, bias, mask).loss.backward()

    times: dict[str, list[float]] = {"wav2vec2-base": [], "hand-written": [], "fused": []}
    by_hand(), fused()
    for _ in range(arguments.rounds):
        for name, run in zip(times, (encode, by_hand, fused), strict=True):
            times[name].append(seconds(run))
    encoder, *heads = (statistics.median(values) for values in times.values())
    print(f"frames {tuple(frames.shape)}: wav2vec2-base {encoder:.2f} s")
    for name, head in zip(("hand-written", "fused"), heads, strict=True):
        print(f"attention, pooling and losses, {name}: {1e3 * head:.1f} ms, {head / (encoder + head):.2%} of the step")


def seconds(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
