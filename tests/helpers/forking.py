"""Fork processes that have imported TensorFlow already: `python -m tests.helpers.forking`.

Importing takes several seconds, so one process imports, and each job is a fork of it that does what
`python run.py` (or another module with a `main`) would, until the interpreter exits. A job is one
line of JSON on stdin: module, arguments, environment variables, and the file for its output. The
answer is its process id; its exit code, once there is one, is in the file `<output>.exit`.
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
    """Fork for each job, and return it in the fork. Return None at the end of stdin."""
    outputs = {}

    def write_exit_codes(*_):
        """Write the exit codes of the forks that have ended, as subprocess returns them."""
        while outputs:
            process, status = os.waitpid(-1, os.WNOHANG)
            if not process:
                return
            partial = Path(f"{outputs.pop(process)}.partial")
            partial.write_text(str(os.waitstatus_to_exitcode(status)), encoding="utf-8")
            partial.rename(partial.with_suffix(".exit"))

    signal.signal(signal.SIGCHLD, write_exit_codes)
    for line in sys.stdin:
        job = json.loads(line)
        # The process id must be known before the signal of its end is handled.
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
        process = os.fork()
        if not process:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
            return job
        outputs[process] = job["output"]
        print(process, flush=True)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
    return None


def main():
    """Serve; in a fork, do what run.py does."""
    import_tensorflow(choose_devices=lambda: False)
    import run  # noqa: F401

    job = serve()
    if job is None:
        return 0
    os.environ.update(job["environ"])
    for number, name in enumerate((os.devnull, os.devnull, job["output"])):
        file = os.open(name, os.O_RDWR | os.O_CREAT)
        os.dup2(file, number)
        os.close(file)
    main = importlib.import_module(job["module"]).main
    return run_main(main, job["arguments"], f"{job['module']}.py")


if __name__ == "__main__":
    sys.exit(main())
