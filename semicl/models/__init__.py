"""The network, its heads, its checkpoints, and what it was trained on."""
