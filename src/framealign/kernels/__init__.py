"""One read of the frames: dot products, norms, attention and the pooled vector, and their gradient.

- `frame_stats`: which path a call takes.
- `definition`: in operations that PyTorch can differentiate in every way.
- `operator`: what PyTorch knows of it otherwise; `interface`: what passes between it and the next three.
- `eager`: the operator in PyTorch, a few utterances at a time (`groups`); the path of the CPU.
- `triton_frame_stats`: the operator in Triton; the path of CUDA. Imported when first needed. Its kernels are in
  `triton_kernels`; `launches` says how they are launched, and `measured_launches` what a card found.
- `packed`: packed frames on a device where Triton cannot run.
- `attentive`, `moments`: what else is worth doing group by group on the CPU; `sums`: theirs and those of `eager`.
"""
