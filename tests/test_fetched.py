"""A model's files: by path, from a bucket, a web server, Hugging Face; and what is refused."""

import os
import threading
import time
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
from conftest import free_port
from hub import COMMIT, TOKEN, hub_of

from flowerray import stores
from flowerray.bases import fetched
from flowerray.bases.fetched import local, only_file
from flowerray.errors import FlowerrayError, UsageError
from flowerray.stores import objects
from flowerray.stores.folder import Folder

WANTED = ("*.h5", "*.npz")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FLOWERRAY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def said():
    return []


def put(uri, data):
    folder, _, name = uri.rpartition("/")
    Folder(folder).write(name, data)


def refusal(place, wanted=WANTED, find=only_file):
    with pytest.raises(FlowerrayError) as refused:
        find(str(place), wanted, lambda message: None)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_a_path_is_used_where_it_is(tmp_path, cache, said):
    models = tmp_path / "models"
    models.mkdir()
    (models / "readme.txt").write_text("hello")
    assert refusal(models) == f"{models} has none of *.h5, *.npz, but readme.txt"
    (models / "a.h5").write_bytes(b"a")
    (models / "below").mkdir()
    (models / "below" / "c.h5").write_bytes(b"c")
    for place in (models, models / "a.h5", f"file://{models}"):
        assert only_file(str(place), WANTED, said.append) == models / "a.h5"
    assert local(str(models), WANTED, said.append) == models
    (models / "b.npz").write_bytes(b"b")
    assert refusal(models) == f"{models} has several: name one of a.h5, b.npz"
    assert "no such file or directory" in refusal(tmp_path / "none")
    assert not said and not cache.exists()


def test_a_file_in_a_bucket_is_fetched_while_it_changes(s3, said, monkeypatch):
    monkeypatch.setattr(objects, "PIECE_BYTES", 1000)
    first, second = os.urandom(2500), os.urandom(2500)
    uri = "s3://flowers/models/one/base.h5"
    put(uri, first)
    found = local(uri, WANTED, said.append)
    assert (found.name, found.read_bytes()) == ("base.h5", first)
    assert local(uri, WANTED, said.append) == found and said == [f"fetching {uri}"]
    put(uri, second)
    assert only_file(uri, WANTED, said.append).read_bytes() == second and len(said) == 2
    assert "nothing is there" in refusal("s3://flowers/models/one/none.h5")


def test_of_a_directory_in_a_bucket_what_is_wanted_is_fetched(s3, said):
    root = "s3://flowers/models/two"
    for name in ("model.onnx", "config.json", "onnx/model.onnx_data", "photograph.jpg"):
        put(f"{root}/{name}", name.encode())
    found = local(f"{root}/", ["*.onnx", "config.json", "onnx/*_data", "none.json"], said.append)
    there = {p.relative_to(found).as_posix() for p in found.rglob("*") if p.is_file()}
    assert there == {"model.onnx", "config.json", "onnx/model.onnx_data"}
    assert (found / "onnx" / "model.onnx_data").read_bytes() == b"onnx/model.onnx_data"
    assert only_file(root, ["*.onnx"], said.append).read_bytes() == b"model.onnx"
    assert refusal(root, ["*.onnx", "*.json"]).endswith(
        "has several: name one of config.json, model.onnx"
    )
    assert refusal(root).startswith(f"{root} has none of *.h5, *.npz, but config.json, model.onnx,")
    assert refusal("s3://flowers/models/empty") == (
        "s3://flowers/models/empty has none of *.h5, *.npz"
    )


@pytest.fixture
def web(tmp_path):
    """A web server of a directory; `modes` say how it behaves."""
    root, modes = tmp_path / "web", set()
    (root / "models" / "more").mkdir(parents=True)
    (root / "models" / "base.h5").write_bytes(b"0123456789" * 1000)
    (root / "models" / "more" / "notes.txt").write_text("none")

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(root))

        def do_HEAD(self):
            if "no head" in modes:
                return self.send_error(403)
            return super().do_HEAD()

        def do_GET(self):
            if "elsewhere" in modes:
                self.send_response(302)
                self.send_header("Location", "http://localhost.example/base.h5")
                return self.end_headers()
            if "endless" in modes or "slow" in modes:
                self.send_response(200)
                self.end_headers()
                for _ in range(1000):
                    time.sleep(0.05 if "slow" in modes else 0)
                    self.wfile.write(b"x" * 1000)
                return None
            return super().do_GET()

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", modes
    server.shutdown()


def test_files_on_a_web_server(web, tmp_path, said):
    address, modes = web
    source = tmp_path / "web" / "models" / "base.h5"
    found = local(f"{address}/models/base.h5?signature=secret", WANTED, said.append)
    assert found.read_bytes() == source.read_bytes() and "secret" not in str(said)
    assert only_file(f"{address}/models", WANTED, said.append).read_bytes() == source.read_bytes()
    assert local(f"{address}/models", ["base.h5", "none.json"], said.append).is_dir()
    assert "base.h5, more/notes.txt" in refusal(f"{address}/models", ["*.npz"])
    assert "nothing is there" in refusal(f"{address}/none.h5")
    (tmp_path / "web" / "page").mkdir()
    (tmp_path / "web" / "page" / "index.html").write_text("no list")
    assert "neither one of *.npz nor a directory that is" in refusal(f"{address}/page", ["*.npz"])
    modes.add("no head")  # which tells no tag: only the content can
    said.clear()
    for _ in range(2):
        found = local(f"{address}/models/base.h5", WANTED, said.append)
    assert len(said) == 2 and found.read_bytes() == source.read_bytes()
    source.write_bytes(b"another")
    assert local(f"{address}/models/base.h5", WANTED, said.append).read_bytes() == b"another"


def test_a_web_server_gets_neither_time_nor_room_without_end(web, cache, monkeypatch):
    address, modes = web
    place = f"{address}/models/base.h5"
    modes |= {"no head", "endless"}
    monkeypatch.setattr(fetched, "MOST_BYTES", 5000)
    assert "more than the 0.0 GB that are fetched" in refusal(place)
    modes.clear()
    assert "more than the 0.0 GB that are fetched" in refusal(place)
    monkeypatch.undo()
    monkeypatch.setenv("FLOWERRAY_CACHE", str(cache))
    monkeypatch.setattr(fetched, "DEADLINE_SECONDS", 0.2)
    modes |= {"no head", "slow"}
    assert "was not here after 0 seconds" in refusal(place)
    modes.clear()
    modes |= {"no head", "elsewhere"}
    assert "redirects to localhost.example: --allow-redirects" in refusal(place)
    assert "secrets" in refusal("http://169.254.169.254/latest/base.h5")
    assert not list(cache.rglob("*"))[1:]  # `fetched` itself may be there


def test_a_server_names_no_file_outside(monkeypatch, said):
    listed = [("mem://x/../../up.h5", 1), ("mem://x/a.h5", 1), ("mem://x/\\up.h5", 1)]

    class Hostile:
        def files(self, uri):
            yield listed

        def about(self, uri):
            return stores.About(1, "tag")

        def pieces(self, uri):
            yield b"x"

    monkeypatch.setattr(stores, "source_at", lambda uri: Hostile())
    found = local("mem://x", ["*.h5"], said.append)
    assert [p.name for p in found.rglob("*")] == ["a.h5"]


@pytest.fixture
def hub(tmp_path, monkeypatch):
    pytest.importorskip("huggingface_hub", reason="needs flowerray[hf]")
    files = {"config.json": b"{}", "onnx/model.onnx": b"graph", "base.h5": b"weights"}
    with hub_of({"org/model": files, "private/model": dict(files)}) as served:
        for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "HF_HUB_CACHE", "HF_TOKEN_PATH"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HF_ENDPOINT", served.address)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hugging"))
        yield served


def test_a_model_comes_from_hugging_face_once(hub, said, monkeypatch, tmp_path):
    from huggingface_hub import scan_cache_dir

    wanted = ["*.json", "onnx/model.onnx"]
    found = local("hf://org/model", wanted, said.append)
    assert (found / "onnx/model.onnx").read_bytes() == b"graph" and (found / "config.json").exists()
    assert not (found / "base.h5").exists()
    (kept,) = scan_cache_dir(tmp_path / "hugging" / "hub").repos
    (revision,) = kept.revisions
    assert (kept.repo_id, revision.commit_hash, kept.nb_files) == ("org/model", COMMIT, 2)
    before = len(hub.asked)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for place in ("hf://org/model", "hf://org/model@main", f"hf://org/model@{COMMIT}"):
        again = local(place, wanted, said.append)
        assert {p.name for p in again.iterdir()} == {"onnx", "config.json"}
    graph = local("hf://org/model/onnx/model.onnx", ["*.onnx"], said.append)
    assert graph.read_bytes() == b"graph"
    assert local("hf://org/model/onnx", ["model.onnx"], said.append) / "model.onnx"
    assert len(hub.asked) == before
    assert "HF_HUB_OFFLINE is set" in refusal("hf://org/model")
    monkeypatch.delenv("HF_HUB_OFFLINE")
    assert only_file("hf://org/model", WANTED, said.append).read_bytes() == b"weights"
    assert not any("agent" in request for request in hub.asked)  # no telemetry


def test_what_hugging_face_refuses_is_a_line(hub, monkeypatch):
    assert "there is no such model at http://127.0.0.1" in refusal("hf://org/none")
    assert "there is no such revision" in refusal("hf://org/model@v2")
    assert "has none of *.npz, but base.h5, config.json, onnx/model.onnx" in refusal(
        "hf://org/model", ["*.npz"]
    )
    assert "has several: name one of base.h5, config.json" in refusal(
        "hf://org/model", ["*.h5", "*.json"]
    )
    assert "or it is private: set HF_TOKEN" in refusal("hf://private/model")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert only_file("hf://private/model", WANTED, print).read_bytes() == b"weights"
    monkeypatch.setattr(fetched, "MOST_BYTES", 6)
    assert "more than the 0.0 GB that are fetched" in refusal("hf://org/model")


def test_hugging_face_has_a_deadline(hub, monkeypatch, cache):
    hub.seconds_a_byte = 1.0
    monkeypatch.setattr(fetched, "DEADLINE_SECONDS", 3.0)
    assert "was not here after 3 seconds" in refusal("hf://org/model")
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setattr(fetched, "DEADLINE_SECONDS", 60.0)
    assert "can't be reached" in refusal("hf://org/model")
    assert not cache.exists()


def test_a_repository_names_no_file_outside(hub, tmp_path):
    hub.repositories["org/model"] = {"../../../../up.h5": b"weights"}
    assert "cannot contain a '..' path segment" in refusal("hf://org/model")
    assert not list(tmp_path.rglob("*up.h5"))


@pytest.mark.parametrize(
    "place",
    [
        *("hf://model", "hf://org/model/../../other", "hf://org/../model", "hf://../model/a.h5"),
        *("hf://org/model@../../x/a.h5", "hf://org/model@%2e%2e/a.h5", "hf://org/model//etc"),
        *("hf://org/model/*.h5", "hf://org/model/a\\b.h5", "hf://org/model?x=1", "hf://"),
    ],
)
def test_odd_names_at_hugging_face_are_refused(place, monkeypatch):
    monkeypatch.setattr(fetched.subprocess, "run", None)  # nothing is asked
    with pytest.raises(UsageError):
        local(place, WANTED)


def test_without_the_library_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setattr(fetched, "find_spec", lambda name: None)
    told = refusal("hf://org/model")
    assert told == "hf://org/model needs huggingface_hub: pip install 'flowerray[hf]'"
