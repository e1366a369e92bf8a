"""Callbacks of a run: record, progress display, samples, checkpoints."""
