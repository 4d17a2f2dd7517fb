"""Several processes on one card, since what takes time there is compiling, and that happens on the host.

A module that uses them has `work(task, options)`, a function from a JSON-able task to a JSON-able result.
"""

import importlib
import json
import os
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from queue import Empty, Queue
from typing import Any

import torch

from on_gpu.options import Options


class Worker:
    """A process that answers tasks one after the other, and keeps what its module keeps."""

    def __init__(self, module: str, options: Options) -> None:
        command = [sys.executable, "-m", "on_gpu.workers", module, str(options.device)]
        # one of many: neither the compiler nor torch should start a process or a thread for each core
        environment = os.environ | {"TORCHINDUCTOR_COMPILE_THREADS": "1", "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, task: Any) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps(task) + "\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline()
        except (BrokenPipeError, ValueError):
            answer = ""
        if not answer:
            return {"error": f"the process ended with {self.process.wait()}"}
        found: dict[str, Any] = json.loads(answer)
        return found

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


def worker_count(most: int) -> int:
    return max(1, min(most, (os.cpu_count() or 2) - 2, 14))


def share_out(module: str, tasks: Sequence[Any], options: Options, done: Callable[[Any, Any], None]) -> None:
    """Call `work` of the module on every task; `done(task, result)` for each, as they end."""
    if options.tiny:
        work = importlib.import_module(f"on_gpu.{module}").work
        for task in tasks:
            done(task, work(task, options))
        return
    queue: Queue[Any] = Queue()
    for task in tasks:
        queue.put(task)
    lock = threading.Lock()

    def serve() -> None:
        worker = Worker(module, options)
        try:
            while True:
                task = queue.get_nowait()
                answer = worker.ask(task)
                if not worker.alive or "CUDA error" in answer.get("error", ""):  # no later call would succeed
                    worker.end()
                    worker = Worker(module, options)
                with lock:
                    done(task, answer)
        except Empty:
            worker.end()

    threads = [threading.Thread(target=serve) for _ in range(worker_count(len(tasks)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def compile_then_measure(
    module: str,
    tasks: Sequence[Any],
    argument: Any,
    options: Options,
    until: float,
    done: Callable[[Any, dict[str, Any], str], None],
) -> None:
    """`work(["prepare", task, seconds], ...)` in all processes at once, then `["measure", task, argument]` one by one.

    Nothing is compiled while something is measured. A task is measured by the process that prepared it. `until` is
    when the part must have ended; `done(task, result, stage)` for each, where the result may be an `error`.
    """
    began = time.monotonic()
    if options.tiny:
        work = importlib.import_module(f"on_gpu.{module}").work
        for task in tasks:
            done(task, work(["prepare", task, 1e9], options), "prepare")
            done(task, work(["measure", task, argument], options), "measure")
        return
    count = worker_count(len(tasks))
    workers = [Worker(module, options) for _ in range(count)]
    compiled_by = began + 0.6 * (until - began)
    ready: dict[str, Worker] = {}
    lock = threading.Lock()

    def get_ready(number: int) -> None:
        for task in tasks[number::count]:
            left = compiled_by - time.monotonic()
            found = workers[number].ask(["prepare", task, left]) if left > 0 else {"error": "not compiled in time"}
            with lock:
                done(task, found, "prepare")
            if "error" not in found:
                ready[json.dumps(task)] = workers[number]

    threads = [threading.Thread(target=get_ready, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread, worker in zip(threads, workers, strict=True):
        thread.join(max(0.0, compiled_by - time.monotonic()))
        if thread.is_alive():  # a single compilation that takes as long as all others: without it, and what it holds
            worker.end()
            thread.join()
    for task in tasks:
        if (worker := ready.get(json.dumps(task))) is not None:
            in_time = time.monotonic() < until
            found = worker.ask(["measure", task, argument]) if in_time else {"error": "not measured in time"}
            done(task, found, "measure")
    for worker in workers:
        worker.end()


def main() -> None:
    module, device = sys.argv[1:]
    work = importlib.import_module(f"on_gpu.{module}").work
    options = Options(torch.device(device), False, 0.0)
    answers, sys.stdout = sys.stdout, sys.stderr  # what a library prints is no answer
    for line in sys.stdin:
        try:
            result = work(json.loads(line), options)
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]  # some say no more than that they failed
            message = (str(error).strip() or "no message").splitlines()[0][:300]
            place = f"{Path(where.filename).name}:{where.lineno}, {where.line}"
            result = {"error": f"{type(error).__name__}: {message} ({place})"}
        answers.write(json.dumps(result) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
