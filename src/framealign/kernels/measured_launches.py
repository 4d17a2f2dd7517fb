"""How the kernels over the frames are launched where that was measured. By `benchmarks/on_gpu/tune.py`."""

# On an NVIDIA H100 80GB HBM3, frames (64, 750, 768) and (64, 4000, 64); all that was timed: benchmarks/results
# (direction, bytes of an element, block of dimensions, columns, attends):
#     (frames of a program, frames of a tile, warps, whether columns stay in registers, tiles on their way at once)
MEASURED: dict[tuple[str, int, int, int, bool], tuple[int, int, int, bool, int]] = {
    # the second of those timed: (64, 2, 4, True, 3), 56.4 us, spills 8 bytes under Triton 3.8
    ("backward", 2, 1024, 1, False): (64, 4, 4, True, 1),  # 56.8 us, by the rule 72.4, bandwidth allows 50.0
    ("backward", 2, 1024, 1, True): (32, 1, 2, True, 3),  # 61.9 us, by the rule 92.8, bandwidth allows 50.0
    ("backward", 2, 1024, 5, False): (64, 1, 4, True, 3),  # 69.0 us, by the rule 102.9, bandwidth allows 50.0
    ("backward", 2, 64, 1, False): (64, 4, 1, True, 3),  # 33.1 us, by the rule 37.1, bandwidth allows 22.2
    ("backward", 2, 64, 1, True): (64, 4, 1, True, 3),  # 45.8 us, by the rule 49.5, bandwidth allows 22.2
    ("backward", 2, 64, 5, False): (64, 8, 1, True, 1),  # 44.7 us, by the rule 87.0, bandwidth allows 22.2
    ("backward", 4, 1024, 1, False): (32, 4, 8, True, 3),  # 99.5 us, by the rule 110.4, bandwidth allows 100.0
    ("backward", 4, 1024, 1, True): (32, 4, 4, True, 3),  # 104.6 us, by the rule 124.9, bandwidth allows 100.0
    ("backward", 4, 1024, 5, False): (64, 4, 4, True, 3),  # 106.7 us, by the rule 118.8, bandwidth allows 100.0
    ("backward", 4, 64, 1, True): (64, 4, 1, True, 1),  # 63.4 us, by the rule 65.6, bandwidth allows 44.4
    ("backward", 4, 64, 5, False): (64, 2, 1, True, 1),  # 62.5 us, by the rule 72.2, bandwidth allows 44.4
    ("forward", 2, 1024, 1, False): (64, 8, 4, True, 3),  # 31.6 us, by the rule 47.4, bandwidth allows 19.7
    # the second of those timed: (64, 4, 2, True, 3), 35.6 us, spills 8 bytes for sm_80 under Triton 3.6
    ("forward", 2, 1024, 1, True): (64, 4, 4, True, 3),  # 36.3 us, by the rule 60.6, bandwidth allows 19.7
    ("forward", 2, 1024, 5, False): (64, 4, 4, True, 3),  # 55.8 us, by the rule 117.5, bandwidth allows 19.7
    ("forward", 2, 64, 1, False): (64, 8, 1, True, 1),  # 17.6 us, by the rule 18.4, bandwidth allows 8.8
    ("forward", 2, 64, 1, True): (64, 8, 1, True, 1),  # 37.8 us, by the rule 44.1, bandwidth allows 8.8
    ("forward", 2, 64, 5, False): (64, 4, 1, True, 1),  # 24.5 us, by the rule 38.7, bandwidth allows 8.8
    ("forward", 4, 1024, 1, False): (32, 1, 2, True, 3),  # 48.0 us, by the rule 49.5, bandwidth allows 39.4
    ("forward", 4, 1024, 1, True): (64, 8, 4, True, 1),  # 53.5 us, by the rule 56.9, bandwidth allows 39.4
    ("forward", 4, 1024, 5, False): (64, 4, 4, True, 3),  # 58.6 us, by the rule 77.9, bandwidth allows 39.4
    ("forward", 4, 64, 1, True): (64, 8, 1, True, 1),  # 46.1 us, by the rule 53.8, bandwidth allows 17.5
    ("forward", 4, 64, 5, False): (64, 8, 1, True, 1),  # 31.5 us, by the rule 43.1, bandwidth allows 17.5
}
