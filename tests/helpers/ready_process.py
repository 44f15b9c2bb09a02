"""A process that says "ready" once it has got where a test needs it."""

import contextlib
import subprocess
import sys

from tests.conftest import ROOT


@contextlib.contextmanager
def ready_process(code, *arguments):
    """Run Python code, and yield its process once it has printed "ready"; kill it at the end."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(command, cwd=ROOT, text=True, **pipes) as process:
        try:
            assert process.stdout.readline() == "ready\n", process.communicate()[1]
            yield process
        finally:
            process.kill()
