"""Find labels that are probably wrong, worst first, with the reason for each."""
