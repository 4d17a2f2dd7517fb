"""Keeping freed memory for the next step, rather than giving it back to the system at each."""

import ctypes
import platform

# of glibc's malloc.h
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
LARGEST_INT = 2**31 - 1


def keep_pages() -> None:
    """Have glibc serve large tensors from memory it keeps.

    By default it maps each one anew and unmaps it again, and the kernel clears every page every time: about a tenth of
    the time of a training step on a CPU (benchmarks/bench_recipe.py), and more where processes compete. Other systems'
    allocators are left as they are. The memory that a process holds at its peak, it then holds to its end.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, LARGEST_INT)
        libc.mallopt(M_TOP_PAD, 64 * 2**20)
