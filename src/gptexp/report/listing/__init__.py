"""The list of runs and sweeps of `gptexp runs`: scan -> index (record) -> rows -> conditions, table. No torch."""
