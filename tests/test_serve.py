"""A classifier behind HTTP, by Ray Serve."""

import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import pytest
import urllib3
from conftest import REPOSITORY, free_port

import flowerray

pytestmark = pytest.mark.slow
pytest.importorskip("ray.serve", reason="Ray Serve is in flowerray[serve]")


@pytest.fixture(scope="module")
def served(fast):
    """The address of a classifier that is served in a Ray of its own, which ends with it."""
    port = free_port()
    script = (
        "import sys, ray; from ray import serve; from jobs.serve import app\n"
        "ray.init('local', num_cpus=2, include_dashboard=False, log_to_driver=False)\n"
        "serve.start(http_options={'host': '127.0.0.1', 'port': int(sys.argv[2])})\n"
        "serve.run(app({'classifier': sys.argv[1], 'min_confidence': '0.9'}), blocking=True)\n"
    )
    arguments = [sys.executable, "-c", script, str(fast / "classifier"), str(port)]
    with subprocess.Popen(arguments, cwd=REPOSITORY) as server:
        address = f"http://127.0.0.1:{port}/"
        try:
            deadline = time.monotonic() + 180
            while not _answers(address):
                assert time.monotonic() < deadline and server.poll() is None
                time.sleep(0.2)
            yield address
        finally:
            server.terminate()


def _answers(address):
    try:
        return urllib3.request("GET", address, retries=False, timeout=5).status == 405
    except urllib3.exceptions.HTTPError:
        return False


def post(address, data):
    answer = urllib3.request("POST", address, body=data, retries=False, timeout=120)
    return answer.status, json.loads(answer.data)


def test_photographs_at_once_get_what_predict_says(served, fast, sample):
    photographs = sorted(sample.pile.glob("*.jpg"))[:12]
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda path: post(served, Path(path).read_bytes()), photographs))
    expected = flowerray.load(fast / "classifier", min_confidence=0.9).predict(photographs)
    for (status, told), one in zip(answers, expected, strict=True):
        if one.error:
            assert status == 422 and told["label"] is None and told["error"]
            continue
        assert status == 200
        assert told.keys() == asdict(one).keys()
        assert (told["label"], told["accepted"]) == (one.label, one.accepted)
        assert told["confidence"] == pytest.approx(one.confidence, abs=1e-5)
        assert told["novelty"] == pytest.approx(one.novelty, rel=1e-4)
        assert told["probabilities"] == pytest.approx(one.probabilities, abs=1e-5)


@pytest.mark.parametrize("data", [b"", b"no photograph", b"\xff\xd8\xff\xe0cut"])
def test_what_is_no_photograph_is_told(served, data):
    status, told = post(served, data)
    assert status == 422 and told["label"] is None and told["error"]


@pytest.mark.parametrize("arguments", [{}, {"classifier": "c", "min_precison": "0.9"}])
def test_arguments_that_make_no_sense_are_refused(arguments):
    from jobs.serve import app

    with pytest.raises(ValueError, match="classifier=DIR"):
        app(arguments)
