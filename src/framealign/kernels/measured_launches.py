"""How the kernels over the frames are launched where that was measured; written by `benchmarks/on_gpu/tune.py`."""

# (direction, bytes of an element, block of dimensions, columns, attends):
#     (frames of a program, frames of a tile, warps, whether columns stay in registers, tiles on their way at once)
MEASURED: dict[tuple[str, int, int, int, bool], tuple[int, int, int, bool, int]] = {}
