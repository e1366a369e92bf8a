"""What the commands of `gptexp` do, behind the entry points at the top; their list, and shell completion."""
