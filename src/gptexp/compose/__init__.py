"""Package compose."""
