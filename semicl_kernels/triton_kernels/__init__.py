"""The Triton kernels, one idea a file; the backend that launches them is ``semicl_kernels.backends.triton``.

``work`` finds what a program has to do, ``planes`` is the arithmetic of tiles and ``strips`` says which need a mask;
``logsumexp`` and ``gradient`` are those passes, ``runs`` sums the positives and ``maps`` moves features to rows and
back. ``tiles`` holds the sizes, by architecture, with the reason for each.
"""
