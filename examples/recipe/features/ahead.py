"""Making things before they are asked for, in a thread of its own."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

import torch

Item = TypeVar("Item")
Made = TypeVar("Made")


def made_ahead(make: Callable[[Item], Made], items: Iterable[Item], ahead: int) -> Generator[Made, None, None]:
    """`make` of each item, in order; a thread is at most `ahead` of them before whoever takes them.

    What `make` raises is raised where its result would have been. Close the iterator to end the thread: it finishes
    what it is making, and makes nothing more.
    """
    rest = iter(items)
    # One thread for PyTorch too: a second team of them would take the cores from the thread that asks
    with ThreadPoolExecutor(1, "made-ahead", initializer=torch.set_num_threads, initargs=(1,)) as pool:
        waiting: deque[Future[Made]] = deque(pool.submit(make, item) for item in islice(rest, ahead))
        try:
            while waiting:
                made = waiting.popleft().result()
                waiting.extend(pool.submit(make, item) for item in islice(rest, 1))
                yield made
        finally:
            for future in waiting:
                future.cancel()
