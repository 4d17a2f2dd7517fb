"""Prove and measure framealign on a GPU, from a plain checkout with nothing installed but torch, triton and einops:

python benchmarks/gpu.py                       # all parts, eight minutes
python benchmarks/gpu.py --device cpu          # a rehearsal on tiny shapes, in Triton's interpreter

Each part is a process of its own with its own time. It writes what it has found so far, and its table is printed as
soon as it ends. A part that fails or runs out of time says so in one line, and never stops the next.
"""

import argparse
import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).resolve().parent
PATHS = [HERE.parent / "examples", HERE, HERE.parent / "src", HERE.parent / "tests"]


class Part(NamedTuple):
    name: str
    share: float  # of the time
    about: str
    needs: tuple[str, ...] = ()  # beside torch, triton and einops


# What the recipe's training imports; none of it reads audio or a command line
RECIPE = (
    *("transformers", "accelerate", "torchaudio", "safetensors", "numpy", "sklearn", "scipy", "tensorboard"),
    *("tqdm", "yaml"),
)
PARTS = {
    part.name: part
    for part in (
        Part("machine", 0.05, "the card, its bandwidth and what a launch costs"),
        Part("tune", 0.2, "block sizes and warps of the kernels"),
        Part("fast", 0.3, "against hand-written code, and the time that the bandwidth allows"),
        Part("recipe", 0.15, "a training step with wav2vec2-base", RECIPE),
        Part("right", 0.18, "values and gradients against float64"),
        Part("silent", 0.12, "no waiting, one graph, replayed with other lengths"),
    )
}


def main() -> int:
    sys.path[:0] = map(str, PATHS)
    arguments = parse()
    if arguments.child:
        child(arguments)
        return 0
    arguments.out.mkdir(parents=True, exist_ok=True)
    if arguments.device == "cpu":
        print("A rehearsal on a CPU, with tiny shapes and Triton's interpreter: its times mean nothing.\n")
    end, failed = time.monotonic() + 60 * arguments.minutes, []
    for number, name in enumerate(arguments.parts):
        part, rest = PARTS[name], [PARTS[later] for later in arguments.parts[number:]]
        seconds = (end - time.monotonic()) * part.share / sum(later.share for later in rest)
        print(f"## {name}: {part.about}\n", flush=True)
        reason = why_not(part, arguments.device) or run(part, seconds, arguments)
        path = arguments.out / f"{name}.json"
        if path.exists():
            with contextlib.suppress(json.JSONDecodeError, KeyError):
                print(shown(name, json.loads(path.read_text())) + "\n", flush=True)
        if reason:
            failed.append(name)
            print(f"{name}: {reason}\n", flush=True)
    written = sorted(path.name for path in arguments.out.glob("*.json"))
    print(
        f"In {arguments.out}: {', '.join(written) or 'nothing'}." + (f" Not whole: {', '.join(failed)}." * bool(failed))
    )
    return 1 if failed else 0


def why_not(part: Part, device: str) -> str | None:
    """Why the part cannot run here, in one line; None where it can."""
    if missing := [
        package for package in ("torch", "triton", "einops", *part.needs) if importlib.util.find_spec(package) is None
    ]:
        return f"cannot run, since {', '.join(missing)} cannot be imported."
    if device == "cuda":
        probe = "import sys, torch; sys.exit(0 if torch.cuda.is_available() else 3)"
        if subprocess.run([sys.executable, "-c", probe], check=False).returncode:
            return "cannot run: torch finds no CUDA device; `--device cpu` is a rehearsal without one."
    return None


def run(part: Part, seconds: float, arguments: argparse.Namespace) -> str | None:
    """The part in a process of its own; what went wrong, in one line."""
    path = arguments.out / f"{part.name}.json"
    path.unlink(missing_ok=True)
    command = [sys.executable, __file__, "--child", part.name, "--seconds", str(seconds)]
    command += ["--out", str(arguments.out), "--device", arguments.device]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, PATHS)), "PYTHONUNBUFFERED": "1"}
    if arguments.device == "cpu":
        environment["TRITON_INTERPRET"] = "1"
    began = time.monotonic()
    process = subprocess.Popen(command, env=environment, start_new_session=True, stderr=subprocess.PIPE, text=True)
    try:
        _, errors = process.communicate(timeout=seconds)
        status = "whole" if process.returncode == 0 else f"failed: {last_line(errors)}"
    except subprocess.TimeoutExpired:
        status = f"stopped at its {seconds:.0f} s; what it had found by then is written"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # its workers, too
    process.wait()
    results = json.loads(path.read_text()) if path.exists() else {"part": part.name}
    results |= {"status": status, "seconds": round(time.monotonic() - began, 1)}
    write(path, results)
    if status.startswith("failed"):
        print(errors[-3000:], file=sys.stderr)
    return None if status == "whole" and not results.get("broken") else f"{broken(results)}{status}."


def broken(results: dict[str, Any]) -> str:
    return f"**{results['broken']} broken**; " if results.get("broken") else ""


def last_line(errors: str) -> str:
    return (errors.strip().splitlines() or ["no message"])[-1][:300]


def write(path: Path, results: dict[str, Any]) -> None:
    """Whole or not at all."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(results, indent=1) + "\n")
    partial.replace(path)


def shown(name: str, results: dict[str, Any]) -> str:
    text: str = importlib.import_module(f"on_gpu.{name}").table(results)
    return text


def child(arguments: argparse.Namespace) -> None:
    import torch

    from on_gpu.options import Options

    device = torch.device(arguments.device)
    module = importlib.import_module(f"on_gpu.{arguments.child}")
    path = arguments.out / f"{arguments.child}.json"
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU, a rehearsal"
    known = {"part": arguments.child, "device": name, "torch": torch.__version__}
    options = Options(device, device.type == "cpu", arguments.seconds)
    module.measure(options, lambda results: write(path, known | results))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=8.0, help="for all parts (default 8)")
    parser.add_argument("--out", type=Path, default=Path("gpu-results"), help="folder for one JSON file each part")
    parser.add_argument("--parts", nargs="+", choices=tuple(PARTS), default=tuple(PARTS), help="only these, in order")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--child", choices=tuple(PARTS), help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.out = arguments.out.resolve()
    return arguments


if __name__ == "__main__":
    sys.exit(main())
