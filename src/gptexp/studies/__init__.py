"""Studies over runs: judge an idea, verify a report, find where two runs part."""
