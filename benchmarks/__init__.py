"""Measurements: how fast, how good, how long without a fault. Run them from the repository's root with `python -m`."""
