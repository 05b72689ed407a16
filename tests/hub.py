"""A server that answers as Hugging Face does, as far as huggingface_hub asks it for files."""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"
PATH = r"/(?:api/models/)?([^/]+/[^/]+)(?:/(\w+)/([^/]+)(?:/(.*))?)?"
TOKEN = "hf_secret"  # what private/* asks for


class Hub:
    """`repositories` are by name what they hold, by path; `asked` are the requests so far; a file
    comes a byte each `seconds_a_byte`."""

    def __init__(self, repositories: dict[str, dict[str, bytes]]) -> None:
        self.repositories = repositories
        self.asked: list[str] = []
        self.seconds_a_byte = 0.0
        self.address = ""


@contextmanager
def hub_of(repositories: dict[str, dict[str, bytes]]):
    """A `Hub` that serves `repositories` at its `address`, which HF_ENDPOINT takes."""
    hub = Hub(repositories)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            hub.asked.append(f"{self.command} {self.path}")
            path = self.path.partition("?")[0]
            parts = re.fullmatch(
                r"/(?:api/models/)?([^/]+/[^/]+)(?:/(\w+)/([^/]+)(?:/(.*))?)?", path
            )
            files = hub.repositories.get(parts[1]) if parts else None
            barred = parts and parts[1].startswith("private/")
            if files is None or (barred and self.headers["Authorization"] != f"Bearer {TOKEN}"):
                return self.answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})
            if parts[3] not in (None, "main", COMMIT):
                return self.answer(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
            if parts[2] == "resolve":
                return self.send_file(files.get(parts[4]))
            if parts[2] == "tree":
                return self.answer(
                    200, json.dumps([entry(*file) for file in files.items()]).encode()
                )
            siblings = [{"rfilename": name} for name in files]
            about = {"id": parts[1], "sha": COMMIT, "siblings": siblings}
            return self.answer(200, json.dumps(about).encode())

        do_HEAD = do_GET

        def send_file(self, data: bytes | None) -> None:
            if data is None:
                return self.answer(404, b"", {"X-Error-Code": "EntryNotFound"})
            tag = {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": COMMIT}
            return self.answer(200, data, tag, hub.seconds_a_byte)

        def answer(self, status, body, headers=None, seconds_a_byte=0.0) -> None:
            self.send_response(status)
            for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "HEAD":
                return
            if not seconds_a_byte:
                self.wfile.write(body)
            for i in range(len(body) if seconds_a_byte else 0):
                time.sleep(seconds_a_byte)
                self.wfile.write(body[i : i + 1])

        def log_message(self, *arguments) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    hub.address = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()


def entry(path: str, data: bytes) -> dict[str, object]:
    return {"type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
