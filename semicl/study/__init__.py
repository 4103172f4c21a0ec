"""An experiment (`semicl run`), and a study: methods x label fractions x splits (`semicl table`, `semicl search`).

`plan` turns options into cells, each a chain of jobs; `jobs` gives them to an executor; `results` reads what the cells
found, and `tables` and `candidates` write it.
"""
