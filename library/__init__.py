"""What you keep: settings, conversion, training, evaluation. Nothing here imports `project`."""
