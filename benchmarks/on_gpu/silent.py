"""No module waits for the device, a training step fits into a CUDA graph, and one compiled graph serves all lengths."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters

import cases
import framealign
from framealign.functional import lengths_to_mask
from on_gpu.options import Options
from on_gpu.rehearsal import interpret_kernels
from on_gpu.workers import share_out

PATTERNS = 10  # of lengths, for one compiled graph


def measure(options: Options, save: Callable[[dict[str, Any]], None]) -> None:
    results: dict[str, Any] = {"broken": 0, "rows": []}
    save(results)

    def done(task: Any, found: dict[str, Any]) -> None:
        results["rows"].append({"task": task, **found})
        results["broken"] = sum("error" in row for row in results["rows"])
        save(results)

    share_out("silent", all_tasks(options.tiny), options, done)


def all_tasks(tiny: bool) -> list[list[str]]:
    modules = list(dict.fromkeys(case.module.__name__ for case in cases.EVERYTHING))
    if tiny:
        return [["waits", "EmotionalAttentionLoss"], ["replayed", "float32"],
                ["compiled", "MeanPooling", "packed", "auto", "aot_eager"]]  # fmt: skip
    compiled = [
        ["compiled", name, layout, "auto", "inductor"] for name in reversed(modules) for layout in ("padded", "packed")
    ]
    # packed frames where there is no kernel: the path that reads nothing either
    compiled += [["compiled", name, "packed", "eager", "inductor"] for name in ("EmotionalAttentionLoss", "OnePass")]
    return [*compiled, ["replayed", "float32"], ["replayed", "bfloat16"], *(["waits", name] for name in modules)]


def work(task: list[str], options: Options) -> dict[str, Any]:
    if options.tiny:
        interpret_kernels()
    torch.manual_seed(0)
    kind, *rest = task
    return {"waits": waits, "replayed": replayed, "compiled": compiled}[kind](*rest, options)


# Waiting for the device -------------------------------------------------------------------------------------------


def waits(name: str, options: Options) -> dict[str, Any]:
    """Forward and backward of every case of a module, padded and packed, while waiting is an error."""
    count = 0
    for case in cases_of(name):
        module = case.build(torch.float32).to(options.device)
        for layout in ("padded", "packed"):
            inputs, mask, cu_seqlens = make(case, cases.MASKS["an empty utterance"], layout, options.device)
            for waiting in (True, False):  # the first call compiles, and may wait
                with contextlib.nullcontext() if waiting else waiting_is_an_error(options.device):
                    outputs = cases.run(module, inputs, mask, cu_seqlens)
                    total = sum(value.float().sum() for value in outputs.values())
                    leaves = [value for value in (*inputs.values(), *module.parameters()) if value.requires_grad]
                    if isinstance(total, Tensor) and total.requires_grad:
                        torch.autograd.grad(total, leaves, allow_unused=True)
            count += 1
    return {"calls": count}


@contextlib.contextmanager
def waiting_is_an_error(device: torch.device) -> Iterator[None]:
    if device.type == "cpu":
        yield
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def cases_of(name: str) -> list[cases.Case]:
    return [case for case in cases.EVERYTHING if case.module.__name__ == name]


def make(
    case: cases.Case, mask: Tensor, layout: str, device: torch.device, seed: int = 0
) -> tuple[dict[str, Tensor], Tensor | None, Tensor | None]:
    inputs = cases.make_inputs(case, mask, torch.float32, seed)
    cu_seqlens = None
    if layout == "packed":
        inputs, cu_seqlens = cases.pack_inputs(inputs, mask)
        cu_seqlens, where = cu_seqlens.to(device), None
    else:
        where = mask.to(device)
    there = {key: value.detach().to(device).requires_grad_(value.is_floating_point()) for key, value in inputs.items()}
    return there, where, cu_seqlens


# A CUDA graph -----------------------------------------------------------------------------------------------------


class Head(nn.Module):
    """What is trained on cached frames: CLS pooling, a classifier and the objective."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.pooling, self.classifier = framealign.CLSSelfAttentionPooling(dim), nn.Linear(dim, 4)
        self.objective = framealign.AlignmentObjective()

    def forward(self, frames: Tensor, mask: Tensor, labels: Tensor) -> Tensor:
        loss: Tensor = self.objective(self.pooling(frames, mask), labels, self.classifier, mask).loss
        return loss


def replayed(dtype: str, options: Options) -> dict[str, Any]:
    """A training step of a head, captured once and replayed with other frames and lengths, against the eager step."""
    batch, time, dim = (3, 6, 8) if options.tiny else (32, 500, 768)
    device, kind = options.device, getattr(torch, dtype)
    heads, optimizers, losses = [], [], []
    for _ in range(2):
        torch.manual_seed(0)
        head = Head(dim).to(device)
        heads.append(head)
        optimizers.append(torch.optim.AdamW(head.parameters(), lr=1e-4, capturable=device.type == "cuda"))
    frames = torch.zeros(batch, time, dim, device=device)
    mask = torch.ones(batch, time, dtype=torch.bool, device=device)
    labels = torch.zeros(batch, dtype=torch.int64, device=device)

    def step(number: int) -> Tensor:
        optimizers[number].zero_grad(set_to_none=False)
        with torch.autocast(device.type, kind, enabled=kind != torch.float32):
            loss: Tensor = heads[number](frames, mask, labels)
        loss.backward()
        optimizers[number].step()
        return loss.detach()

    def fill(seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        frames.copy_(torch.randn(frames.shape, generator=generator))
        lengths = torch.randint(0, time + 1, (batch,), generator=generator)
        mask.copy_(lengths_to_mask(lengths, time))
        labels.copy_(torch.randint(4, (batch,), generator=generator))

    if device.type == "cpu":
        return {"steps": 1, "largest difference": 0.0, "loss": float(step(0))}
    fill(0)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step(0)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step(0)
    for _ in range(3):  # what the warm-up did; a capture runs nothing
        step(1)
    for seed in range(1, 6):
        fill(seed)
        graph.replay()
        losses.append((float(captured), float(step(1))))
    difference = max(abs(one - other) for one, other in losses)
    found = {"steps": len(losses), "largest difference": difference, "losses": losses}
    if not difference <= (1e-5 if kind == torch.float32 else 1e-2):
        found["error"] = f"the replayed losses are {difference:.1e} from those of the eager steps"
    return found


# torch.compile ----------------------------------------------------------------------------------------------------


class Packed(nn.Module):
    def __init__(self, module: nn.Module, names: list[str]) -> None:
        super().__init__()
        self.module, self.names = module, names

    def forward(self, mask: Tensor | None, cu_seqlens: Tensor | None, *values: Tensor) -> dict[str, Tensor]:
        return cases.run(self.module, dict(zip(self.names, values, strict=True)), mask, cu_seqlens)


def compiled(name: str, layout: str, backend: str, compiler: str, options: Options) -> dict[str, Any]:
    """Ten length patterns through one graph, without a recompilation; values and gradients against eager ones."""
    case = cases_of(name)[0]
    module = case.build(torch.float32).to(options.device)
    for part in module.modules():
        if hasattr(part, "backend"):
            part.backend = backend
    if backend != "auto" and name == "OnePass":
        module.options = module.options | {"backend": backend}
    flat = Packed(module, [*case.inputs, "labels"])
    torch.compiler.reset()
    counters.clear()
    faster = torch.compile(flat, fullgraph=True, dynamic=True, backend=compiler)
    largest = 0.0
    for seed in range(2 if options.tiny else PATTERNS):
        generator = torch.Generator().manual_seed(seed)
        batch, time = (int(size) for size in torch.randint(4, 30, (2,), generator=generator))
        mask = torch.rand(batch + cases.CLASSES, time + cases.DIM, generator=generator) > 0.3 * (seed % 3)
        inputs, where, cu_seqlens = make(case, mask, layout, options.device, seed)
        for key, value in values_and_gradients(faster, flat, where, cu_seqlens, inputs).items():
            largest = max(largest, value)
            if not value <= 1e-3:
                return {"error": f"pattern {seed}: {key} is {value:.1e} from the eager one"}
    # What dynamo kept: the compiler itself may be called again where an attempt is started anew
    graphs = counters["stats"]["unique_graphs"]
    found: dict[str, Any] = {"graphs": graphs, "largest difference": largest}
    if graphs != 1:
        found["error"] = f"{graphs} graphs"
    return found


def values_and_gradients(
    faster: Callable[..., dict[str, Tensor]], flat: nn.Module, mask: Tensor | None, cu_seqlens: Tensor | None,
    inputs: dict[str, Tensor],
) -> dict[str, float]:  # fmt: skip
    """Distances between what the compiled and the eager module give."""
    leaves = [value for value in (*inputs.values(), *flat.parameters()) if value.requires_grad]
    results = []
    for function in (faster, flat):
        outputs = function(mask, cu_seqlens, *inputs.values())
        total = sum((value * value.detach().cos()).sum() for value in outputs.values())
        gradients = [torch.zeros(())]
        if isinstance(total, Tensor) and total.requires_grad:
            gradients = list(torch.autograd.grad(total, leaves, allow_unused=True, materialize_grads=True))
        results.append([*outputs.values(), *gradients])
    names = [*outputs, *(f"gradient {i}" for i in range(len(gradients)))]
    return {
        key: float((one - other).detach().norm() / other.detach().norm().clamp_min(1e-3))
        for key, one, other in zip(names, *results, strict=True)
        if other.numel()
    }


def table(results: dict[str, Any]) -> str:
    rows, lines = results["rows"], []
    calls = sum(row.get("calls", 0) for row in rows)
    waiting = [row for row in rows if row["task"][0] == "waits"]
    lines.append(f"Waiting is an error: {calls} forward and backward passes of {len(waiting)} modules.")
    for row in rows:
        if row["task"][0] == "replayed" and "error" not in row:
            lines.append(
                f"A captured training step ({row['task'][1]}) replayed with {row['steps']} other batches: losses "
                f"differ from eager ones by at most {row['largest difference']:.1e}."
            )
    graphs = [row for row in rows if row["task"][0] == "compiled" and "error" not in row]
    if graphs:
        largest = max(row["largest difference"] for row in graphs)
        lines.append(
            f"Compiled: {len(graphs)} modules and layouts, one graph each for {PATTERNS} length patterns; values and "
            f"gradients differ from eager ones by at most {largest:.1e}."
        )
    lines += [f"- **{' '.join(row['task'])}**: {row['error']}" for row in rows if "error" in row]
    return "\n".join(lines)
