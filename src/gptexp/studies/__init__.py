"""Studies of several runs: `judge` decides about ideas one after another, with controlled errors."""
