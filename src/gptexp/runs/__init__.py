"""Run folders: layout, results, provenance, checkpoints, and finding and opening them."""
