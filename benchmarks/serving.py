"""Measure the server against a bare one that decodes with Pillow and calls the Keras model.

    python -m benchmarks.serving [--seconds 5] [--clients 64]

Both serve the network `simple` for 28 x 28 gray pixels with random weights, each in a process of
its own, and get the same PNG: from one client that keeps its connection, then from many at once.
For each it prints the rate, the median time of an answer and the 99th percentile, in milliseconds.

The last line is a JSON object: for one client, the rate divided by that of the bare server; for
many, the same and the 99th percentile divided by the median.
"""

import argparse
import collections
import http.client
import io
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from PIL import Image

SIZE, CLASSES = 28, 10


def make_network():
    """Return the network that both serve."""
    from project.hyperparameters import Hyperparameters
    from project.networks import make_network

    return make_network("simple", (SIZE, SIZE, 1), CLASSES, Hyperparameters().model_dump())


def serve() -> None:
    """Serve as `python run.py serve` does."""
    from library.saving.snapshots import Snapshot
    from library.serving import server
    from library.serving.application import make_application
    from library.serving.model import ServedModel
    from library.serving.uploads import RequestLimits
    from project.settings import Project

    defaults = Project()
    snapshot = Snapshot(make_network(), tuple(map(str, range(CLASSES))), {}, Path())
    limits = RequestLimits(
        defaults.max_upload_megabytes, defaults.max_upload_secs, defaults.max_waiting
    )
    with (
        server.open_socket("127.0.0.1", 0) as listening,
        ServedModel(snapshot, defaults.max_megapixels) as model,
    ):
        application = make_application(model, limits)
        print(listening.getsockname()[1], flush=True)
        server.make_server(application).run([listening])


def serve_bare() -> None:
    """Serve with nothing but Starlette, Pillow and Keras."""
    import anyio.to_thread
    import uvicorn
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    network = make_network()
    limiter = anyio.CapacityLimiter(1)

    def classify(content):
        image = Image.open(io.BytesIO(content)).convert("L").resize((SIZE, SIZE))
        pixels = np.asarray(image, np.float32)[np.newaxis, :, :, np.newaxis]
        scores = network(pixels, training=False).numpy()[0]
        return {"class": str(scores.argmax()), "scores": scores.tolist()}

    async def predict(request):
        content = await request.body()
        return JSONResponse(await anyio.to_thread.run_sync(classify, content, limiter=limiter))

    application = Starlette(routes=[Route("/predict", predict, methods=["POST"])])
    config = uvicorn.Config(application, port=0, log_level="critical", http="h11", loop="asyncio")
    server = uvicorn.Server(config)
    threading.Thread(target=server.run).start()
    while not server.started:
        time.sleep(0.01)
    print(server.servers[0].sockets[0].getsockname()[1], flush=True)


def load(port: int, content: bytes, clients: int, seconds: float) -> tuple[float, float, float]:
    """Return requests per second, the median and the 99th percentile in milliseconds."""
    taken: list[float] = []
    statuses: collections.Counter[int] = collections.Counter()
    end = time.perf_counter() + seconds

    def ask() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        while (start := time.perf_counter()) < end:
            connection.request("POST", "/predict", content, {"Content-Type": "image/png"})
            response = connection.getresponse()
            response.read()
            statuses[response.status] += 1
            taken.append(1000 * (time.perf_counter() - start))

    threads = [threading.Thread(target=ask) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if set(statuses) != {200}:
        raise SystemExit(f"not all were answered: {dict(statuses)}")
    middle, late = np.percentile(taken, (50, 99))
    return len(taken) / seconds, float(middle), float(late)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=5, help="length of each measurement")
    parser.add_argument("--clients", type=int, default=64, help="number of clients at once")
    parser.add_argument("--serve", choices=["ours", "bare"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        return serve() if options.serve == "ours" else serve_bare()
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE), np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    found = {}
    with tempfile.TemporaryFile() as errors:
        for name in ("ours", "bare"):
            command = [sys.executable, "-m", "benchmarks.serving", "--serve", name]
            with subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=errors, text=True
            ) as process:
                port = int(process.stdout.readline())
                load(port, buffer.getvalue(), 1, 1)
                for clients in (1, options.clients):
                    rate, middle, late = load(port, buffer.getvalue(), clients, options.seconds)
                    found[name, clients] = rate, middle, late
                    print(
                        f"{name}: {clients} clients  {rate:.0f}/s  median {middle:.1f} ms  "
                        f"99 % within {late:.1f} ms"
                    )
                process.kill()
    one, many = ([found[name, each] for name in ("ours", "bare")] for each in (1, options.clients))
    print(
        json.dumps(
            {
                "one_over_bare": round(one[0][0] / one[1][0], 2),
                "many_over_bare": round(many[0][0] / many[1][0], 2),
                "many_p99_over_median": round(many[0][2] / many[0][1], 2),
                "bare_p99_over_median": round(many[1][2] / many[1][1], 2),
            }
        )
    )


if __name__ == "__main__":
    main()
