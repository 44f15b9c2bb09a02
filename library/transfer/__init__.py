"""Pretrained networks: what finds, loads and freezes them, and keeps what they gave."""
