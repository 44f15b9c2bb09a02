"""A server in a thread, and a model that answers with what it was sent."""

import http.client
import json
import threading

from library.serving import server
from library.serving.application import make_application
from library.serving.request_error import RequestError
from library.serving.uploads import RequestLimits

RAW = {"Content-Type": "application/octet-stream"}


class EchoModel:
    """Stands for a ServedModel."""

    name = "simple"
    description = "simple <of> 2 classes"
    classes = ("cat", "dog")

    def classify(self, content):
        if content == b"broken":
            raise ValueError("broken upload")
        if content == b"text":
            raise RequestError("no_image_format", "the upload is not an image")
        return {"bytes": len(content)}

    def explain(self, content, class_name):
        return {"explained": class_name, **self.classify(content)}


class RunningServer:
    """A server on a free port, in a thread."""

    def __init__(self, model=None, page=None, limits=None, application=None):
        limits = limits or RequestLimits(0.5, 0.5, 2)
        application = application or make_application(
            model, limits, server.allowed_hosts("127.0.0.1"), page
        )
        self._listening = server.open_socket("127.0.0.1", 0)
        self.url = server.socket_url(self._listening)
        self.port = self._listening.getsockname()[1]
        self._server = server.make_server(application)
        self._thread = threading.Thread(target=self._server.run, args=([self._listening],))

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._server.should_exit = True
        self._thread.join(60)
        self._listening.close()
        assert not self._thread.is_alive()


def ask(port, content):
    """Return (status, JSON) of an upload."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("POST", "/predict", content, RAW)
    response = connection.getresponse()
    found = response.status, json.loads(response.read())
    connection.close()
    return found
