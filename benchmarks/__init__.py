"""Speed, memory and errors of the losses against naive code and peers, on any device: ``python -m benchmarks``.

Data flow, each module importing those before it alone:

    problems -> providers -> memory -> devices -> measure -> workers -> session -> __main__
    shapes,     ways to      of a      cpu, cuda,  jobs of    one at    order,     report,
    inputs      the loss     process   interpreter a task     a time    budget     plots

``plan`` says what is measured and ``checks`` what runs before it; ``targets`` judges; ``flops`` has the formulas.
``sizes``, ``beside`` and ``tune`` are commands of their own; ``warm_up`` is what runs under a sanitizer or a profiler.
"""

try:
    import matplotlib  # noqa: F401
    import psutil  # noqa: F401
    import rich  # noqa: F401
except ModuleNotFoundError as missing:
    raise SystemExit(f"error: {missing}; install what benchmarks need: pip install -e '.[bench]' here") from None
