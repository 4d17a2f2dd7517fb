"""Times on a card: of the card alone, and of a call from Python."""

import statistics
import time
from collections.abc import Callable

import torch

_FLUSH = 2**28  # bytes written between two timed runs, several times the L2 cache


def card_milliseconds(run: Callable[[], object], device: torch.device, repeats: int = 15) -> float:
    """Median time on the card of what `run` launches, without the host: a CUDA graph of it, replayed.

    The L2 cache is overwritten before each replay, so that inputs come from memory, as in training they do.
    """
    if device.type == "cpu":
        return call_milliseconds(run, device, 1)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outputs = run()
    flush = torch.empty(_FLUSH, dtype=torch.uint8, device=device)
    times = []
    for _ in range(repeats):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        flush.zero_()
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    del outputs
    return statistics.median(times)


def call_milliseconds(run: Callable[[], object], device: torch.device, calls: int = 20) -> float:
    """Median over five rounds of the time of a call in a row of calls: the slower of host and card decides."""
    times = []
    for number in range(6 if calls > 1 else 1):
        synchronize(device)
        began = time.perf_counter()
        for _ in range(calls):
            run()
        synchronize(device)
        if number or calls == 1:  # the first round warms up
            times.append(1e3 * (time.perf_counter() - began) / calls)
    return statistics.median(times)


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()
