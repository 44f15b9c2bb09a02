"""A program that converts in children which are killed: at a change of the disk, or any time.

Started once by test_conversion_interrupted.py, because importing takes longer than converting. Each
line of its input is JSON: the arguments of `convert` below. It answers with what became of the
child: its exit code, or "killed".
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

from library.dataset import conversion, shard_division

_CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"}


class InProcess:
    """Replaces WorkerPool: applies the function in this process."""

    def __init__(self, function, *_):
        self.function = function

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def grow(self, _):
        """Nothing to grow."""

    def map(self, batches):
        """Yield (batch, results)."""
        for batch in batches:
            yield batch, [(True, self.function(each)) for each in batch]


def convert(source, folder):
    """Convert within this process, in small batches: it can be killed between them."""
    # Written data survives a kill, synced or not; only a power cut differs.
    os.fsync = lambda handle: None
    conversion.WorkerPool = InProcess
    shard_division._BATCH_FILES = 4
    conversion.convert(
        conversion.Source(str(source), "train", conversion.SourceOptions(folder)),
        folder,
        "train",
        conversion.ConversionOptions(num_shards=3, num_workers=1),
    )


def die_at(change, folder):
    """Have this process killed just before it changes anything in `folder` for that many times."""
    changes = 0

    def hook(event, arguments):
        nonlocal changes
        if event == "open":
            path, mode, _ = arguments
            if not isinstance(path, str) or not isinstance(mode, str) or not set(mode) & set("awx"):
                return
        elif event not in _CHANGES:
            return
        if str(arguments[0]).startswith(folder):
            changes += 1
            if changes == change:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def run(source, folder, change=None, seconds=None):
    """Convert in a child, which dies before a change of the disk, or after some seconds."""
    child = os.fork()
    if child == 0:
        try:
            if change:
                die_at(change, folder)
            convert(Path(source), Path(folder))
            os._exit(0)
        except BaseException as error:
            print(repr(error), file=sys.stderr)
            os._exit(1)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return "killed" if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


if __name__ == "__main__":
    for line in sys.stdin:
        begun = time.monotonic()
        print(json.dumps([run(**json.loads(line)), time.monotonic() - begun]), flush=True)
