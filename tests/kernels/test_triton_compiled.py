"""What the kernels become for a GPU, compiled ahead of time: no GPU is needed.

The launchers run on tensors of the CPU with every kernel replaced by a recorder. What they would have launched is
then compiled, specialised as Triton does at a launch: by dtype, by what is 1, and by which pointers and integers
16 divides.
"""

import inspect
import re
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from packaging.version import Version  # which pytest needs too
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

pytest.importorskip("triton", minversion="3.3", reason="the kernels need Triton 3.3")

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime import JITFunction

from framealign.kernels import triton_frame_stats as kernels
from framealign.kernels import triton_kernels
from framealign.kernels.interface import Gradients, Needs, Request, Saved
from framealign.kernels.measured_launches import MEASURED

TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
KERNELS = [name for name, value in vars(kernels).items() if name.endswith("_kernel") and isinstance(value, JITFunction)]
TYPES = {
    torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16",
    torch.bool: "i1", torch.int32: "i32", torch.int64: "i64",
}  # fmt: skip

# Bytes that Triton 3.9's ptxas keeps on the stack with 72 registers in use: one word, once for each tile of frames
KNOWN_SPILLS = {(64, torch.bfloat16, True, 90): 8} if Version(triton.__version__) >= Version("3.9") else {}

each_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)


@pytest.fixture(autouse=True)
def _compile_afresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))


class Recorder:
    """Stands in for a kernel, and keeps the arguments of its last launch."""

    def __init__(self, kernel: JITFunction) -> None:
        self.kernel, self.arguments, self.options = kernel, {}, {}

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        return self.launch

    def launch(self, *args: Any, enable_fp_fusion: bool, num_warps: int = 4, **kwargs: Any) -> None:
        self.arguments = inspect.signature(self.kernel.fn).bind(*args, **kwargs).arguments
        self.options = {"num_warps": num_warps, "enable_fp_fusion": enable_fp_fusion}


class Binary(NamedTuple):
    registers: int
    stack: int
    sass: str  # each instruction below the line of the source that it comes from

    def accesses(self, kind: str, line: str) -> Counter[int]:
        """Bits that the instructions of a kind, LDG or STG, access, by width; of those from source lines with the text.

        Every instruction counts once: all of them are in one loop over the frames, or in one of the loops that the
        compiler unrolled it into. A load of n words is written as inline assembly, whose first n - 1 lines clear the
        result, and the compiler numbers each of these lines as one more line of the source.
        """
        source = Path(triton_kernels.__file__).read_text().splitlines()
        height = 4 if kind == "LDG" else 1
        numbers = {i + j for i, text in enumerate(source, 1) if line in text for j in range(height)}
        found: Counter[int] = Counter()
        number = 0
        for text in self.sass.splitlines():
            if origin := re.search(r'//## File "(.*)", line (\d+)', text):
                number = int(origin[2]) if origin[1] == triton_kernels.__file__ else 0
            elif number in numbers and (access := re.search(rf"\b{kind}((?:\.\w+)*) ", text)):
                width = re.search(r"\.[SU]?(8|16|64|128)\b", access[1])
                bits = int(width[1]) if width else 32
                found[bits] += bits
        return found


def launch(
    monkeypatch: pytest.MonkeyPatch, frames: Tensor, columns: int, *, attend: bool = True, packed: bool = False,
    needs_frames: bool = True,
) -> dict[str, Recorder]:  # fmt: skip
    """Run both launchers; what they launched, by the kernels' names."""
    recorders = {name: Recorder(getattr(kernels, name)) for name in KERNELS}
    with monkeypatch.context() as patch:
        for name, recorder in recorders.items():
            patch.setattr(kernels, name, recorder)
        batch, dim = frames.shape[0], frames.shape[-1]
        mask = None if packed else torch.ones(frames.shape[:2], dtype=torch.bool)
        cu_seqlens = torch.zeros(batch + 1, dtype=torch.int32) if packed else None
        frames, vectors = frames[0] if packed else frames, torch.zeros(batch, columns, dim)
        outputs = kernels.forward(Request(frames, vectors, None, mask, cu_seqlens, attend, norms=True))
        saved = Saved(frames, vectors, *outputs[1:], mask, cu_seqlens, attend, has_logits=False)
        gradients = Gradients(*outputs if attend else (*outputs[:2], None, None))
        kernels.backward(saved, gradients, Needs(frames=needs_frames))
    return recorders


def compiled(recorder: Recorder, capability: int, tmp_path: Path) -> Binary:
    signature, constants, attributes = {}, {}, {}
    for i, parameter in enumerate(recorder.kernel.params):
        value = recorder.arguments[parameter.name]
        specialised = not parameter.do_not_specialize
        if isinstance(value, Tensor):
            signature[parameter.name], address = f"*{TYPES[value.dtype]}", value.data_ptr()
        elif value is None or parameter.is_constexpr or (specialised and value == 1):
            signature[parameter.name], constants[parameter.name] = "constexpr", value
            continue
        else:
            signature[parameter.name], address = "i32" if value < 2**31 else "i64", value
        if specialised and address % 16 == 0:
            attributes[(i,)] = [["tt.divisibility", 16]]
    source = ASTSource(recorder.kernel, signature, constants, attributes)
    binary = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=recorder.options)

    path = tmp_path / "kernel.cubin"
    path.write_bytes(binary.asm["cubin"])
    usage = output("cuobjdump", "-res-usage", path)
    registers, stack = (int(re.search(rf"{name}:(\d+)", usage)[1]) for name in ("REG", "STACK"))
    return Binary(registers, stack, output("nvdisasm", "--print-line-info", "--print-code", path))


def output(tool: str, *arguments: str | Path) -> str:
    return subprocess.run([TOOLS / tool, *arguments], check=True, capture_output=True, text=True).stdout


def assert_no_spills(binary: Binary, known: int = 0) -> None:
    assert binary.stack == known
    if known:
        return
    assert not re.search(r"\b(LDL|STL)\b", binary.sass)


def assert_wide(accesses: Counter[int]) -> None:
    assert accesses.total() > 0
    assert accesses[128] >= 0.9 * accesses.total(), accesses


@each_dtype
@pytest.mark.parametrize("dim", [64, 768, 1024])
@pytest.mark.parametrize(("attend", "capability"), [(True, 80), (True, 90), (False, 90)])
def test_aligned_rows_are_read_and_written_in_whole_words(
    dim: int, dtype: torch.dtype, attend: bool, capability: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    recorders = launch(monkeypatch, torch.zeros(16, 16, dim, dtype=dtype), columns=6, attend=attend)
    forward = compiled(recorders["forward_kernel"], capability, tmp_path)
    assert_no_spills(forward, KNOWN_SPILLS.get((dim, dtype, attend, capability), 0))
    assert forward.registers <= 128
    assert_wide(forward.accesses("LDG", "tl.load(pointers"))

    backward = compiled(recorders["backward_kernel"], capability, tmp_path)
    assert_no_spills(backward)
    assert backward.registers <= 255
    assert_wide(backward.accesses("LDG", "tl.load(pointers"))
    assert_wide(backward.accesses("STG", "tl.store(g_frames"))
    if dtype == torch.bfloat16:  # rounds to nearest, which the interpreter does not
        assert "F2FP.BF16" in backward.sass
        assert ".RZ" not in "".join(re.findall(r"F2FP\S*", backward.sass))


@pytest.mark.parametrize("key", MEASURED, ids=str)
@pytest.mark.parametrize("capability", [80, 90])
def test_measured_launches_spill_nothing_and_access_whole_words(
    key: tuple[str, int, int, int, bool], capability: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Those chosen on a card hold all they keep in registers, and reach the frames in whole words."""
    direction, itemsize, block, columns, attend = key
    frames = torch.zeros(16, 64, block, dtype=torch.float32 if itemsize == 4 else torch.bfloat16)
    recorders = launch(monkeypatch, frames, columns, attend=attend)
    binary = compiled(recorders[f"{direction}_kernel"], capability, tmp_path)
    assert_no_spills(binary)
    # what is on its way ahead of its tile goes to shared memory, without passing through a register
    kind = "LDGSTS" if "LDGSTS" in binary.sass else "LDG"
    assert_wide(binary.accesses(kind, "tl.load(pointers"))
    if direction == "backward":
        assert_wide(binary.accesses("STG", "tl.store(g_frames"))


# Odd and even, up to the largest that `why_not` lets pass
@each_dtype
@pytest.mark.parametrize(
    ("dim", "columns"),
    [(1, 12), (65, 12), (128, 12), (767, 12), (2048, 12), (4095, 7), (8191, 1)],
)
def test_nothing_spills_up_to_the_largest_sizes(
    dim: int, columns: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    frames = torch.zeros(2, 16, dim, dtype=dtype)
    recorders = launch(monkeypatch, frames, columns)
    assert kernels.why_not(frames, recorders["forward_kernel"].arguments["columns"]) is None
    for name in ("forward_kernel", "backward_kernel"):
        binary = compiled(recorders[name], 80, tmp_path)
        assert_no_spills(binary)


@each_dtype
def test_unaligned_frames_spill_nothing(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    recorders = launch(monkeypatch, torch.zeros(16, 16, 2 * 768 + 1, dtype=dtype)[..., 1::2], columns=6)
    for name in ("forward_kernel", "backward_kernel"):
        assert_no_spills(compiled(recorders[name], 80, tmp_path))


def test_no_kernel_of_a_packed_batch_spills(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    recorders = launch(monkeypatch, torch.zeros(4, 40, 768), columns=6, packed=True)
    assert len(recorders) == 5
    for recorder in recorders.values():
        assert_no_spills(compiled(recorder, 90, tmp_path))


@pytest.mark.parametrize("packed", [True, False], ids=["packed", "padded"])
def test_launchers_read_no_value(packed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeTensorMode():  # whose tensors have no values to read
        recorders = launch(monkeypatch, torch.zeros(4, 40, 8), columns=3, packed=packed)
    assert all(recorder.arguments for recorder in recorders.values())


class LargestTensor(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.elements = max(self.elements, result.numel())
        return result


@pytest.mark.parametrize("needs_frames", [True, False])
def test_frame_gradients_take_memory_only_where_needed(needs_frames: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = torch.zeros(4, 500, 64)
    with LargestTensor() as largest:
        recorders = launch(monkeypatch, frames, columns=2, needs_frames=needs_frames)
    assert (recorders["backward_kernel"].arguments["g_frames"] is not None) == needs_frames
    assert (largest.elements == frames.numel()) == needs_frames
