"""Speed and memory of the losses against naive code and the strongest plain PyTorch: ``python -m benchmarks``.

Data flow: ``problems`` makes shapes and inputs and ``providers`` the ways to compute their loss; ``plan`` says what is
measured and ``measure`` does it, with ``timing``, ``memory`` and ``flops``; ``accuracy`` and ``boundary`` look at
errors and at the cost of a call; ``targets`` judges; ``report`` and ``plots`` show. ``gpu`` does the same on a GPU.
"""
