"""Hardware, the ranks of a distributed run, SLURM, and how Lightning is imported."""
