"""The Triton kernels, one idea a file; ``backends.triton``, ``backends.fused`` and ``partition_kernels`` launch them.

- ``partition_kernels``: rows and groups from labels
- ``gather_scatter``: features to rows, gradients of rows to a map
- ``logsumexp``, ``gradient``: the two passes over pairs of rows
- ``rectangular``: the same of rows and keys
- ``class_sums``: sums of positives, losses of anchors, the gradient through the normalization
- ``tile_scheduler``: which tiles a program takes
- ``masking``: which tiles need a mask
- ``split_bf16``: float32 rows as sums of bfloat16 rows
- ``tile_configs``: tile sizes by architecture, with the reason for each
"""
