"""The command compare."""

import sys
from pathlib import Path


def compare(settings):
    """Show runs side by side, and what differs in their settings: a table, a page, a summary."""
    from library.reporting.comparison import find_runs, format_comparison, write_comparison

    runs, skipped, folder = find_runs(settings.paths, Path(settings.project.run_dir).parent)
    for line in skipped:
        print(line, file=sys.stderr)
    for line in format_comparison(runs):
        print(line)
    page, summary = write_comparison(folder, runs, skipped)
    print(f"written: {page} and {summary}", file=sys.stderr)
