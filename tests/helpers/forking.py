"""Fork processes that have imported TensorFlow already: `python -m tests.helpers.forking`.

Importing costs a process several seconds, so one process imports, and each job is a fork of it that
goes on as `python run.py` (or another module with a `main`) would, to the very end of the
interpreter. A job is one line of JSON on stdin: module, arguments, environment variables, and the
file for all that is said. The answer is its process id; its exit code, once there is one, is in the
file `<said>.exit`.
"""

import importlib
import json
import os
import signal
import sys
from pathlib import Path

from library.errors import run_main
from library.tensorflow_import import import_tensorflow


def serve():
    """Fork for each job; in the fork, give it. At the end of stdin, give None."""
    said = {}

    def tell_exits(*_):
        """Write the codes of those that have ended, as subprocess would give them."""
        while said:
            process, status = os.waitpid(-1, os.WNOHANG)
            if not process:
                return
            partial = Path(f"{said.pop(process)}.partial")
            partial.write_text(str(os.waitstatus_to_exitcode(status)))
            partial.rename(partial.with_suffix(".exit"))

    signal.signal(signal.SIGCHLD, tell_exits)
    for line in sys.stdin:
        job = json.loads(line)
        # Not to be told of an end before its process id is known here.
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
        process = os.fork()
        if not process:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
            return job
        said[process] = job["said"]
        print(process, flush=True)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
    return None


def main():
    """Serve; or, in a fork, do as run.py does."""
    import_tensorflow(choose_devices=lambda: False)
    import run  # noqa: F401

    job = serve()
    if job is None:
        return 0
    os.environ.update(job["environ"])
    for number, name in enumerate((os.devnull, os.devnull, job["said"])):
        file = os.open(name, os.O_RDWR | os.O_CREAT)
        os.dup2(file, number)
        os.close(file)
    main = importlib.import_module(job["module"]).main
    return run_main(main, job["arguments"], f"{job['module']}.py")


if __name__ == "__main__":
    sys.exit(main())
