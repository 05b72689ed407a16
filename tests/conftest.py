"""Fixtures: real photographs where they are at hand, drawn ones everywhere, one Ray for all."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import site
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import urllib3

from flowerray.commands.sample import SampleSet, draw_sample

REPOSITORY = Path(__file__).resolve().parents[1]
RAY = str(Path(sys.executable).parent / "ray")


def free_port() -> int:
    """A port of this machine that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


# What takes seconds: a Ray, a server of objects, a build. `make test-fast` leaves its tests out,
# and those of the files that are marked as a whole.
SLOW_FIXTURES = {
    *("local_ray", "on_local_ray", "command", "commands_in_one_ray", "fast", "ray_head"),
    *("s3_server", "built", "empty_environment"),
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as slow what uses any of SLOW_FIXTURES."""
    for item in items:
        if SLOW_FIXTURES & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)


HEAD_PORT, DASHBOARD_PORT, AGENT_PORT = free_port(), free_port(), free_port()
SHARED = Path(os.environ.get("FLOWERRAY_SHARED", REPOSITORY.parent / "shared"))

S3_CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "key",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_REGION": "us-east-1",
}


# Of a script that a test starts, in KiB. `getrusage` would count the memory of pytest, which forks.
PEAK_MEMORY = "int(open('/proc/self/status').read().partition('VmHWM:')[2].split()[0])"


@pytest.fixture(autouse=True)
def as_on_a_fast_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command in this process says no "starting", as on a machine that is never late."""
    monkeypatch.setattr("flowerray.progress.SECONDS_TO_A_WORD", 3600.0)


@pytest.fixture(scope="session")
def flower_photos() -> Path:
    """Real photographs in train/CLASS and valid/CLASS."""
    photographs = SHARED / "flower_photos"
    if not photographs.is_dir():
        pytest.skip(f"real photographs are not at {photographs} (FLOWERRAY_SHARED names the place)")
    return photographs


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> SampleSet:
    """A small drawn sample set: 10 a class, labelled and in a pile, and four broken files."""
    return draw_sample(tmp_path_factory.mktemp("drawn") / "sample", per_class=10)


@pytest.fixture(scope="session")
def few(tmp_path_factory: pytest.TempPathFactory) -> SampleSet:
    """Fewer drawings, 4 a class, for tests that compute VGG16: a photograph can take 0.4 s."""
    return draw_sample(tmp_path_factory.mktemp("few") / "sample", per_class=4)


@pytest.fixture(scope="session")
def fast(sample: SampleSet, local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`features` of the sample set, the same `whole` and not as embeddings, and a `classifier`: on
    thumbnails, so poor but fast."""
    from flowerray.commands.extract import extract
    from flowerray.commands.train import train
    from flowerray.settings import ExtractSettings, TrainSettings

    here = tmp_path_factory.mktemp("fast")
    extract(ExtractSettings(images=sample.labelled, out=here / "features", base="thumbnail"))
    whole = ExtractSettings(
        images=sample.labelled, out=here / "whole", base="thumbnail", pool="none"
    )
    extract(whole)
    train(TrainSettings(features=here / "features", out=here / "classifier"))
    return here


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The address of a server that takes 20 ms for an answer and refuses one request in twenty."""
    pytest.importorskip("moto", reason="moto, the S3 server, is in flowerray[test]")
    address = f"http://127.0.0.1:{free_port()}"
    script = [sys.executable, REPOSITORY / "tests" / "s3_server.py", address.rpartition(":")[2]]
    server = subprocess.Popen([*script, "--errors", "0.05", "--latency", "0.02"])
    try:
        deadline = time.monotonic() + 60
        while troubles(address) is None:
            assert time.monotonic() < deadline and server.poll() is None
            time.sleep(0.1)
        import boto3

        key, secret, region = S3_CREDENTIALS.values()
        client = boto3.client(
            "s3",
            endpoint_url=address,
            aws_access_key_id=key,
            aws_secret_access_key=secret,
            region_name=region,
        )
        client.create_bucket(Bucket="flowers")
        yield address
    finally:
        server.kill()
        server.wait()


def troubles(address: str) -> list[int] | None:
    """Requests so far, and those of them that were refused; None while nothing answers."""
    try:
        answer = urllib3.request("GET", f"{address}/troubles", retries=False)
    except urllib3.exceptions.HTTPError:
        return None
    return [int(n) for n in answer.data.split()[:2]]


@pytest.fixture(scope="module")
def s3(s3_server: str) -> Iterator[str]:
    """That server's address, which is also where s3:// leads to. One server for all modules: a
    process keeps the stores that it opened."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**S3_CREDENTIALS, "AWS_ENDPOINT_URL": s3_server}.items():
            patch.setenv(name, value)
        yield s3_server


@pytest.fixture(scope="session")
def local_ray():
    """One local Ray that every job of the tests uses, as nested connections do. Its workers have
    the credentials of the tests' S3 server."""
    from flowerray.pipeline.connection import connection

    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        for name, value in S3_CREDENTIALS.items():
            patch.setenv(name, value)
        with pytest.MonkeyPatch.context() as short:
            # Else the next training would wait for another worker to import TensorFlow.
            short.setenv("RAY_idle_worker_killing_time_threshold_ms", "3600000")
            stack.enter_context(connection(None))
        yield


@pytest.fixture
def on_local_ray(local_ray: None) -> dict[str, str]:
    """What a command's environment has to have to use that Ray, and not start one for itself."""
    import ray

    return {"RAY_ADDRESS": ray.get_runtime_context().gcs_address}


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the sdist, and the wheel that was built from it."""
    out = tmp_path_factory.mktemp("built") / "dist"
    build = [sys.executable, "-m", "build", "--outdir", str(out), str(REPOSITORY)]
    subprocess.run(build, check=True, capture_output=True, text=True, timeout=300)
    return out


@pytest.fixture(scope="session")
def empty_environment(tmp_path_factory: pytest.TempPathFactory):
    """Make a virtual environment with none of flowerray in it, nor of the packages left out.

    The rest is this environment's, seen through a .pth file, so that nothing large is installed
    anew. Returns its Python.
    """

    def make(name: str, *left_out: str) -> Path:
        directory = tmp_path_factory.mktemp(name)
        hidden = ("flowerray", "__editable__", "pip", *left_out)
        seen = directory / "packages"
        seen.mkdir()
        for entry in Path(site.getsitepackages()[0]).iterdir():
            if not entry.name.lower().startswith(hidden) and entry.suffix != ".pth":
                (seen / entry.name).symlink_to(entry)
        venv = directory / "venv"
        subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True, timeout=120)
        (packages,) = (venv / "lib").glob("python*/site-packages")
        (packages / "seen.pth").write_text(f"{seen}\n")
        return venv / "bin/python"

    return make


@contextmanager
def ray_head(
    python: str | Path, log: Path, directory: str, **more: str
) -> Iterator[dict[str, str]]:
    """A Ray head of `python`, with the dashboard that takes jobs, behind a token; its processes are
    its own. Gives the environment that commands reach it with."""
    environment = {
        **os.environ,
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": "0123456789abcdef" * 4,
        "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{DASHBOARD_PORT}",
        "PATH": f"{Path(python).parent}:{os.environ['PATH']}",
        **more,
    }
    options = [
        "--head",
        "--block",
        "--num-cpus=2",
        f"--port={HEAD_PORT}",
        "--include-dashboard=true",
    ]
    options += [f"--dashboard-port={DASHBOARD_PORT}", f"--temp-dir={directory}"]
    # Its usual port may be another Ray's of this machine; without an agent no job starts.
    options += [f"--dashboard-agent-listen-port={AGENT_PORT}"]
    with open(log, "wb") as stream:
        head = subprocess.Popen(
            [str(python), "-m", "ray.scripts.scripts", "start", *options],
            env=environment,
            cwd=log.parent,  # a job without a working_dir starts where its node did
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )
    try:
        wait_until_jobs_are_taken(environment, head)
        yield environment
    finally:
        os.killpg(head.pid, signal.SIGKILL)  # in the group: all of the head, which would take 30 s
        head.wait(timeout=60)


def wait_until_jobs_are_taken(environment: dict[str, str], head: subprocess.Popen) -> None:
    deadline = time.monotonic() + 90
    while head.poll() is None and time.monotonic() < deadline:
        # Listing jobs works before there is an agent that could start one.
        trial = [RAY, "job", "submit", "--", "true"]
        if subprocess.run(trial, env=environment, capture_output=True).returncode == 0:
            return
    raise RuntimeError("the Ray head did not come up")


CHROMIUM = os.environ.get("CHROMIUM") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
CHROMIUM_OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="module")
def browser():
    """A Chromium, by playwright. A module's: while it runs, no other loop of asyncio can."""
    if CHROMIUM is None:
        pytest.skip("no Chromium: install chromium, or name one in CHROMIUM")
    api = pytest.importorskip("playwright.sync_api", reason="needs flowerray[test]: playwright")
    with api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_OPTIONS)
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser: Any) -> Iterator[Any]:
    """Open a file in a browser of its own; at the end, nothing but the file was asked for and
    nothing was complained of."""
    opened = []

    def open_page(file, **options):
        context = browser.new_context(**{"accept_downloads": True, **options})
        page = context.new_page()
        said, asked = [], []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(file.as_uri())
        opened.append((context, page, said, asked, file))
        return page

    yield open_page
    for context, page, said, asked, file in opened:
        assert said == []
        assert {url for url in asked if not url.startswith(("data:", "blob:"))} == {file.as_uri()}
        assert page.evaluate("window.broken") is None
        context.close()


@contextmanager
def reviewed(labels: Path, *options: object) -> Iterator[tuple[Any, str]]:
    """The process of a review of `labels`, and its address."""
    script = [sys.executable, "-m", "flowerray", "review", str(labels), "--no-browser", "--json"]
    with subprocess.Popen(
        [*script, *map(str, options)], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        try:
            address = next(
                found[0]
                for line in server.stderr
                if (found := re.search(r"https?://\S+/", line)) is not None
            )
            threading.Thread(target=server.stderr.read, daemon=True).start()
            yield server, address
        finally:
            server.kill()


def barriers(page: Any) -> list[str]:
    """What axe-core calls serious or critical of an open page: each rule, and the elements."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    return [
        f"{one['id']}: {one['help']}: {[node['html'][:160] for node in one['nodes'][:5]]}"
        for one in found
        if one["impact"] in ("serious", "critical")
    ]


IN_ONE_RAY = """
import json, sys
from flowerray.cli import main
from flowerray.pipeline.connection import connection
with connection(None):
    for words in json.loads(sys.argv[1]):
        assert main(words) == 0, words
"""


@pytest.fixture
def commands_in_one_ray():
    """Run `flowerray` commands one after the other, in a process and a Ray of their own."""

    def run(*commands: tuple[object, ...], **environment: str) -> None:
        words = json.dumps([list(map(str, arguments)) for arguments in commands])
        done = subprocess.run(
            [sys.executable, "-c", IN_ONE_RAY, words],
            capture_output=True,
            text=True,
            env={**os.environ, **environment},
            timeout=600,
        )
        assert done.returncode == 0, done.stderr

    return run


@pytest.fixture
def command():
    """Run the `flowerray` command as a user does; returns the completed process."""

    def run(
        *arguments: object, prefix: tuple[str, ...] = (), **environment: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*prefix, sys.executable, "-m", "flowerray.cli", *map(str, arguments)],
            capture_output=True,
            text=True,
            env={**os.environ, **environment},
            timeout=600,
        )

    return run
