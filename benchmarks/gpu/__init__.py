"""Speed, memory and correctness on a GPU, by one command: ``python -m benchmarks.gpu``.

Data flow: ``plan`` says what is done, most important first; ``campaign`` does it until the time is over: ``checks``
runs tests, sanitizer and ``rehearsal`` beside each other, then a ``crew`` of one process at a time runs jobs of
``measure`` and of ``limits`` on a ``device``, which is a GPU (``nvidia``) or Triton's interpreter (``interpreter``).
``providers`` are the ways to compute the loss; ``targets`` judges, ``report`` shows. What is timed, and how, stands in
``nvidia``; the formulas of operations in ``benchmarks.flops``.
"""
