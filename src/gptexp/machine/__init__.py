"""Package machine."""
