"""Sweeps: many experiments by one line, each stored before the first starts, and found again by the same line."""
