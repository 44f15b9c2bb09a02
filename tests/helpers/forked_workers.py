"""Worker processes that are forks of one that has imported their libraries: 0.2 s less for each.

Five hundred of them start in the tests. tests/dataset/test_worker_pool.py has the real ones.
"""

import contextlib
import multiprocessing
import os
import subprocess
import sys
from multiprocessing.connection import Connection
from pathlib import Path

from library.dataset import worker_process

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.helpers.forked_workers", "library.dataset.encode_record"])


class ForkedWorker:
    """A worker process, with as much of subprocess.Popen as WorkerPool needs."""

    def __init__(self, errors):
        stdin, requests = os.pipe()
        answers, stdout = os.pipe()
        self.stdin, self.stdout = os.fdopen(requests, "wb"), os.fdopen(answers, "rb")
        theirs = [Connection(each) for each in (stdin, stdout, os.dup(errors.fileno()))]
        arguments = (theirs, Path.cwd(), dict(os.environ))
        self._process = CONTEXT.Process(target=_work, args=arguments, daemon=True)
        self._process.start()
        for each in theirs:
            each.close()
        self.pid, self.kill = self._process.pid, self._process.kill

    def wait(self, timeout):
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("worker", timeout)
        return self._process.exitcode


def _work(files, folder, environ):
    os.chdir(folder)
    os.environ.update(environ)
    for number, each in enumerate(files):
        os.dup2(each.fileno(), number)
        each.close()
    sys.stdin = os.fdopen(0)
    with contextlib.suppress(BrokenPipeError, KeyboardInterrupt):
        worker_process._run()
    os._exit(0)
