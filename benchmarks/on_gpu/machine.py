"""The card: what it is, how fast it copies, and what a launch costs."""

import os
import platform
import shutil
import subprocess
from collections.abc import Callable
from typing import Any

import torch
import triton

from on_gpu.options import Options
from on_gpu.timing import call_milliseconds, card_milliseconds

QUERY = ("name", "driver_version", "clocks.sm", "clocks.mem", "clocks.max.sm", "power.limit", "temperature.gpu")


@triton.jit
def empty_kernel():
    pass


def measure(options: Options, save: Callable[[dict[str, Any]], None]) -> None:
    results: dict[str, Any] = {
        "python": platform.python_version(),
        "triton": triton.__version__,
        "cuda": torch.version.cuda,
        "cores": os.cpu_count(),
        "tools": [tool for tool in ("nvidia-smi", "compute-sanitizer", "ncu", "nvcc") if shutil.which(tool)],
    }
    if options.device.type == "cuda":
        properties = torch.cuda.get_device_properties(options.device)
        results |= {
            "multiprocessors": properties.multi_processor_count,
            "memory_bytes": properties.total_memory,
            "l2_bytes": properties.L2_cache_size,
            "capability": f"{properties.major}.{properties.minor}",
            "nvidia-smi before": smi(),
        }
    save(results)
    results["bandwidth"] = {
        f"{size / 2**20:.0f} MiB": bandwidth(size, options)
        for size in ([2**16] if options.tiny else [2**26, 2**28, 2**31])
    }
    results["copy_bytes_per_s"] = max(results["bandwidth"].values())
    save(results)
    results["launch_us"] = {
        "an empty Triton kernel, called": 1e3 * call_milliseconds(lambda: empty_kernel[(1,)](), options.device, 200),
        "torch's add_ on one number, called": 1e3 * call_milliseconds(one_add(options), options.device, 200),
        "torch's add_ on one number, in a CUDA graph": 1e3 * in_a_graph(options),
    }
    if options.device.type == "cuda":
        results["nvidia-smi after"] = smi()
    save(results)


def smi() -> dict[str, str]:
    if shutil.which("nvidia-smi") is None:
        return {}
    command = ["nvidia-smi", f"--query-gpu={','.join(QUERY)}", "--format=csv,noheader"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()
    return dict(zip(QUERY, (value.strip() for value in answer[0].split(",")), strict=False)) if answer else {}


def bandwidth(size: int, options: Options) -> float:
    """Bytes read and written in a second by a copy from device to device."""
    source = torch.randn(size // 4, device=options.device)
    target = torch.empty_like(source)
    return 2 * size / (1e-3 * card_milliseconds(lambda: target.copy_(source), options.device))


def copy_bandwidth(options: Options) -> float:
    """Of a copy that fits no cache: what times are held against."""
    return bandwidth(2**16 if options.tiny else 2**31, options)


def one_add(options: Options) -> Callable[[], object]:
    number = torch.zeros(1, device=options.device)
    return lambda: number.add_(1)


def in_a_graph(options: Options, count: int = 100) -> float:
    add = one_add(options)
    return card_milliseconds(lambda: [add() for _ in range(count)], options.device) / count


def table(results: dict[str, Any]) -> str:
    lines = [
        f"{results['device']}; torch {results['torch']}, Triton {results['triton']}, CUDA {results['cuda']}, "
        f"Python {results['python']}, {results['cores']} cores."
    ]
    for when in ("before", "after"):
        if found := results.get(f"nvidia-smi {when}"):
            lines.append(f"nvidia-smi {when}: " + ", ".join(f"{name} {value}" for name, value in found.items()) + ".")
    if "bandwidth" in results:
        copies = ", ".join(f"{size} {found / 1e9:.0f} GB/s" for size, found in results["bandwidth"].items())
        lines.append(f"Copy from device to device, bytes read and written: {copies}.")
    for name, found in results.get("launch_us", {}).items():
        lines.append(f"A launch of {name}: {found:.1f} µs.")
    return "\n".join(lines)
