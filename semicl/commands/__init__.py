"""One file a command of `semicl`, with one function of the same name."""
