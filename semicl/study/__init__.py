"""A study: methods x label fractions x splits (`semicl table`).

`plan` turns options into cells, each a chain of jobs; `runner` runs the jobs side by side, each by `worker` in a
process of its own, as many as `capacity` finds room for; `board` shows how far they are; `results` reads what the cells
found, and `tables` writes it.
"""
