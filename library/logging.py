"""Logging to stderr, beside the progress bar."""

import sys

from tqdm import tqdm


def report(text):
    """Say one line on stderr, above the progress bar if there is one."""
    tqdm.write(text, file=sys.stderr)
