"""Text -> documents -> token shards -> windows."""
