"""The stages: losses, views, loops, and their folders."""
