"""Package generation."""
