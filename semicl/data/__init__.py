"""Cases, their checks, and what the network sees of them."""
