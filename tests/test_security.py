"""Where photographs are read from, and what stays behind in a process that called flowerray."""

import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from conftest import free_port

from flowerray import stores
from flowerray.errors import FlowerrayError, UsageError
from flowerray.sources.photographs import Limits, Rejected, read
from flowerray.stores import addresses
from flowerray.stores import web as web_store
from flowerray.stores.web import WebStore


@pytest.fixture
def web():
    """A server that redirects, asks for a login, and lists a directory in itself."""
    seen = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            seen.append(dict(self.headers))
            port = self.server.server_port
            targets = {
                "/here": "/photograph",
                "/circle": "/circle",
                "/elsewhere": f"http://localhost:{port}/photograph",
                "/secrets": "http://169.254.169.254/latest/meta-data",
                "/file": "file:///etc/passwd",
            }
            body = b"photograph"
            if self.path in targets:
                self.send_response(302)
                self.send_header("Location", targets[self.path])
                body = b""
            elif self.path.startswith("/itself"):
                self.send_response(200)
                body = b"<html><a href='a/'>a</a><a href='1.jpg'>1</a></html>"
            elif self.path == "/login" and "Authorization" not in self.headers:
                self.send_response(401)
            elif self.path.startswith("/none"):
                self.send_response(404)
            else:
                self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.seen = seen
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


def why(uri, store=None):
    with pytest.raises(Rejected) as rejected:
        read(uri, None, Limits())
    assert "\n" not in rejected.value.detail
    return rejected.value.detail


def test_redirects_stay_on_their_host_unless_allowed(web):
    root = f"http://127.0.0.1:{web.server_port}"
    assert read(f"{root}/here", None, Limits()) == b"photograph"
    assert "--allow-redirects localhost" in why(f"{root}/elsewhere")
    assert "in a circle" in why(f"{root}/circle")
    assert "no web address" in why(f"{root}/file")
    assert WebStore(("localhost",)).read(f"{root}/elsewhere") == b"photograph"
    with pytest.raises(FlowerrayError, match="metadata"):
        WebStore(("169.254.169.254",)).read(f"{root}/secrets")
    with pytest.raises(OSError, match="https to http"):
        WebStore(("a.org",))._check_redirect("https://a.org/x", "http://a.org/x")


@pytest.mark.parametrize(
    "host",
    [
        *("169.254.169.254", "[fe80::1]", "[fd00:ec2::254]", "metadata.google.internal"),
        *("100.100.100.200", "[::ffff:169.254.169.254]", "2852039166", "0xa9fea9fe"),
        *("0251.0376.0251.0376", "[64:ff9b::a9fe:a9fe]", "METADATA.google.internal."),
    ],
)
def test_link_local_and_metadata_addresses_are_never_asked(host):
    assert "metadata address" in why(f"http://{host}/latest/meta-data/")
    assert why(f"simplecache::http://{host}/latest").endswith("the uri of the last one")


def test_own_and_private_addresses_may_serve():
    for host in ("127.0.0.1", "::1", "10.1.2.3", "192.168.1.1", "172.16.0.1", "8.8.8.8"):
        addresses.check(host)


def test_a_server_that_lists_a_directory_in_itself_is_told(web):
    root = f"http://127.0.0.1:{web.server_port}/itself"
    with pytest.raises(FlowerrayError, match="list a directory in itself"):
        list(stores.source_at(root).files(root))
    assert len(web.seen) < 100


def test_a_login_reaches_its_own_host_alone_and_no_message_has_it(web, monkeypatch):
    at = f"127.0.0.1:{web.server_port}"
    assert "401" in why(f"http://{at}/login")
    assert read(f"http://us%40er:pass@{at}/login", None, Limits()) == b"photograph"
    assert read(f"http://{at}/login", None, Limits()) == b"photograph"  # it is the host's
    web.seen.clear()
    WebStore(("localhost",)).read(f"http://user:pass@{at}/elsewhere")
    assert ["authorization" in str(headers).lower() for headers in web.seen] == [True, False]
    for path in ("none?X-Amz-Signature=abc", "none?sig=abc"):
        with pytest.raises(OSError) as raised:
            WebStore().read(f"http://user:pass@{at}/{path}")
        assert "abc" not in str(raised.value) and "pass" not in str(raised.value)
    monkeypatch.setattr(web_store, "RETRIES", 1)
    with pytest.raises(OSError) as raised:
        WebStore().read(f"http://user:pass@127.0.0.1:{free_port()}/x?sig=abc")
    assert "abc" not in str(raised.value) and "pass" not in str(raised.value)


def test_a_chain_of_stores_is_no_way_around():
    with pytest.raises(UsageError, match="chain of stores"):
        stores.source_at("filecache::file:///etc/passwd")


def test_a_missing_directory_for_ray_is_gone_around(tmp_path, monkeypatch):
    from flowerray.pipeline import local_ray

    monkeypatch.setenv("TMPDIR", str(tmp_path / "none"))
    with local_ray.directory_for_ray() as directory:
        assert directory and os.path.isdir(directory) and len(directory) <= 39
    assert not os.path.exists(directory)
