"""Shards at a URL, downloaded shortly before they are read and deleted when space is needed."""
