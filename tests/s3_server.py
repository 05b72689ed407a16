"""A real S3 server process on loopback (moto's), which answers late and now and then with 503.

python tests/s3_server.py PORT [--errors 0.05] [--latency 0.02] [--seed 0]
"""

from __future__ import annotations

import argparse
import random
import threading
import time

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

BUSY = (
    b'<?xml version="1.0" encoding="UTF-8"?><Error><Code>SlowDown</Code>'
    b"<Message>Please reduce your request rate.</Message></Error>"
)


class Troubled:
    """A WSGI application that waits `latency` seconds before each answer, and answers a share of
    `errors` with 503 instead. /troubles tells how many, and
    how many bytes were served, and is never troubled itself."""

    def __init__(self, application, errors: float, latency: float, seed: int) -> None:
        self.application, self.errors, self.latency = application, errors, latency
        self.random, self.lock = random.Random(seed), threading.Lock()
        self.requests = self.refused = self.served = 0

    def __call__(self, environ, start_response):
        if environ["PATH_INFO"] == "/troubles":
            start_response("200 OK", [("Content-Type", "text/plain")])
            return [f"{self.requests} {self.refused} {self.served}".encode()]
        with self.lock:
            self.requests += 1
            refuse = self.random.random() < self.errors
            self.refused += refuse
        time.sleep(self.latency)
        if refuse:
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            start_response("503 Slow Down", [("Content-Type", "application/xml")])
            return [BUSY]
        return self._counted(self.application(environ, start_response))

    def _counted(self, answer):
        for data in answer:
            self.served += len(data)
            yield data


class Handler(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"  # keeps connections, as S3 does

    def log_request(self, *arguments) -> None:
        """Say nothing."""


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("port", type=int)
    options.add_argument("--errors", type=float, default=0.0)
    options.add_argument("--latency", type=float, default=0.0)
    options.add_argument("--seed", type=int, default=0)
    chosen = options.parse_args()
    application = Troubled(
        DomainDispatcherApplication(create_backend_app),
        chosen.errors,
        chosen.latency,
        chosen.seed,
    )
    make_server(
        "127.0.0.1", chosen.port, application, threaded=True, request_handler=Handler
    ).serve_forever()


if __name__ == "__main__":
    main()
