"""The Triton kernels, one idea a file; ``backends.triton``, ``backends.fused`` and ``counting`` launch them.

``work`` finds what a program has to do, ``planes`` is the arithmetic of tiles and ``strips`` says which need a mask;
``counting`` makes rows of labels; ``logsumexp`` and ``gradient`` are those passes, ``runs`` sums the positives and
``maps`` moves features to rows and back. ``tiles`` holds the sizes, by architecture, with the reason for each.
"""
