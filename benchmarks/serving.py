"""Servers: the project's, and a bare one that decodes with Pillow and calls the Keras model.

Both serve the network `simple` for 28 x 28 gray pixels with random weights, and get the same PNG.
benchmarks/cases.yaml says what is compared.
"""

import http.client
import io
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

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


def ours(clients: str, requests: str) -> Iterator[int | None]:
    """Ask the project's server."""
    return ask_server("serve", int(clients), int(requests))


def bare(clients: str, requests: str) -> Iterator[int | None]:
    """Ask the bare server."""
    return ask_server("serve_bare", int(clients), int(requests))


def ask_server(function: str, clients: int, requests: int) -> Iterator[int | None]:
    """Ask a server in a process of its own: `requests` by each of the clients at once."""
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE), np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    content = buffer.getvalue()
    code = f"from benchmarks import serving; serving.{function}()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True
    ) as server:
        try:
            port = int(server.stdout.readline())
            with ThreadPoolExecutor(clients) as pool:
                while True:
                    yield
                    tasks = [pool.submit(ask, port, content, requests) for _ in range(clients)]
                    yield sum(task.result() for task in tasks)
        finally:
            server.kill()


def ask(port: int, content: bytes, requests: int) -> int:
    """Send one image many times on one connection; return how often."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    for _ in range(requests):
        connection.request("POST", "/predict", content, {"Content-Type": "image/png"})
        response = connection.getresponse()
        response.read()
        if response.status != 200:
            raise RuntimeError(f"the server answered {response.status}")
    connection.close()
    return requests
