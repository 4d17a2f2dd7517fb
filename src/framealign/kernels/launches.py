"""How the kernels over the frames are launched: which frames a program takes, and in how many threads."""

from typing import NamedTuple

from framealign.kernels.measured_launches import MEASURED


class Launch(NamedTuple):
    """How a kernel over the frames is launched."""

    chunk: int  # frames of a program
    block_t: int  # frames of a tile
    block_d: int
    num_warps: int
    hold: bool  # whether the columns stay in registers, or are fetched for each tile
    stages: int  # tiles on their way at once; 1 leaves it to the warps of other programs


class Launches(NamedTuple):
    forward: Launch
    backward: Launch


def launches(dim: int, itemsize: int, columns: int, attend: bool) -> Launches:
    """How to launch for frames of `dim` elements of `itemsize` bytes: as measured, or else by rule."""
    found, block_d = launches_by_rule(dim, itemsize), block_of(dim)
    for direction in Launches._fields:
        measured = MEASURED.get((direction, itemsize, block_d, columns, attend))
        if measured is not None:
            chunk, block_t, num_warps, hold, stages = measured
            found = found._replace(**{direction: Launch(chunk, block_t, block_d, num_warps, hold, stages)})
    return found


def launches_by_rule(dim: int, itemsize: int) -> Launches:
    """Whatever the number of columns, none of which stays in registers."""
    block_d = block_of(dim)
    # A tile of one 16-bit frame has the register layout of a column; in a larger one every column would be exchanged
    # between threads, which costs more than to fetch the columns for each frame. 32-bit tiles have it at any size.
    wide = itemsize == 4
    warps = min(max(block_d // 512, 1), 16)
    elements = min((1024 if wide else 512) * warps, 8192)
    forward = Launch(32, _tile(elements, block_d), block_d, warps, False, 1)

    warps = min(max(block_d // 256, 1), 8)
    # small, for each column sums one more of its size
    backward = Launch(64, _tile(256 * warps, block_d), block_d, warps, False, 1)
    return Launches(forward, backward)


def block_of(dim: int) -> int:
    """The power of two that holds `dim`."""
    return max(16, 1 << (dim - 1).bit_length())


def _tile(elements: int, block_d: int) -> int:
    return min(max(elements // block_d, 1), 8)  # every frame of a tile has registers of its own, too
