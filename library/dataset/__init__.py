"""Labeled images become sharded records, with a manifest that says what they hold."""
