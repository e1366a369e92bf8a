"""The states of a run. The first three are the status in result.json; the others follow from its folder."""

COMPLETED, INTERRUPTED, FAILED = "completed", "interrupted", "failed"
RUNNING, CORRUPT = "running", "corrupt"
