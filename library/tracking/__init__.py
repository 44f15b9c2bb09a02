"""Report runs to experiment trackers: a queue on disk, and a process that sends what is in it."""
