"""An object store for s3:// URLs on loopback: moto's server, in a process of its own.

As a program, it keeps the objects while it is told on stdin to stop and to start answering.
"""

import contextlib
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from typing import Any

from tests.conftest import ROOT


class ObjectStore:
    """A running server. Objects survive `stop` and `start`, `suspend` and `resume`."""

    def __init__(self) -> None:
        """Start it on a free port of 127.0.0.1."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.helpers.object_store"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.port = int(self._answer())

    @property
    def environ(self) -> dict[str, str]:
        """What makes s3fs and boto3 use this server."""
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def new_bucket(self) -> str:
        """Create a bucket, and return its URL."""
        name = f"bucket-{uuid.uuid4().hex[:12]}"
        self._tell(f"create {name}")
        return f"s3://{name}"

    def stop(self) -> None:
        """Refuse connections from now on."""
        self._tell("stop")

    def start(self) -> None:
        """Answer again, on the same port."""
        self._tell("start")

    def suspend(self) -> None:
        """Accept connections from now on, but answer none."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Answer what came meanwhile."""
        self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """End the process, with all objects."""
        self._process.kill()
        self._process.communicate()

    def _tell(self, line: str) -> None:
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        assert self._answer() == line

    def _answer(self) -> str:
        return self._process.stdout.readline().strip()


@contextlib.contextmanager
def used_by_this_process(store: ObjectStore, monkeypatch) -> Iterator[str]:
    """Yield the URL of a new bucket, which this process reaches within the block."""
    import s3fs

    from library.dataset import storage

    def forget_connections():
        storage._open_shared_store.cache_clear()
        s3fs.S3FileSystem.clear_instance_cache()

    for name, value in store.environ.items():
        monkeypatch.setenv(name, value)
    forget_connections()
    try:
        yield store.new_bucket()
    finally:
        forget_connections()


def main() -> None:
    """Serve until stdin ends; print the port, and each command when it was followed."""
    import logging

    import boto3
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    os.environ |= {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}

    def start(port: int) -> ThreadedMotoServer:
        server = ThreadedMotoServer("127.0.0.1", port, verbose=False)
        server.start()
        return server

    server: Any = start(0)
    _, port = server.get_host_and_port()
    print(port, flush=True)
    for line in sys.stdin:
        command, _, name = line.strip().partition(" ")
        if command == "stop" and server:
            server.stop()
            # Otherwise the system would accept connections, which nobody answers.
            server._server.server_close()
            server = None
        elif command == "start":
            server = server or start(port)
        elif command == "create":
            url = f"http://127.0.0.1:{port}"
            client = boto3.client("s3", endpoint_url=url, region_name="us-east-1")
            client.create_bucket(Bucket=name)
        print(line.strip(), flush=True)


if __name__ == "__main__":
    main()
