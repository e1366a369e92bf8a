"""The commands of `gptexp`, called by the entry points at the top of the package; their list; shell completion."""
