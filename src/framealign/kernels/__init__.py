"""One read of the frames: dot products, norms, attention and the pooled vector, and their gradient.

- `frame_stats`: which path a call takes, and the registration of the operator.
- `eager`: the operator in PyTorch, a few utterances at a time (`groups`); the path of the CPU.
- `triton_frame_stats`: the operator in Triton; the path of CUDA. Imported when first needed.
- `plain`: the definition, in operations that PyTorch can differentiate in every way.
- `moments`, `zero_padding`: what else is worth doing group by group on the CPU.
"""
