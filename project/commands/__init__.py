"""What run.py can do: one file a command, each naming the rooms it goes through."""
