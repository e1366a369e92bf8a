"""Data: from text to documents, token shards, windows and batches."""
