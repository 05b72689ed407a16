import subprocess
import sys

import numpy as np
import pytest

from flowerray.bases import weights
from flowerray.bases.spec import BASES
from flowerray.errors import FlowerrayError

# A proxy that refuses: the same as no internet, for Keras and for pip.
NO_NETWORK = dict.fromkeys(("http_proxy", "https_proxy", "all_proxy"), "http://127.0.0.1:9")


def quiet(message):
    pass


@pytest.fixture(scope="module")
def arrays():
    return weights.load("vgg16", say=quiet).arrays


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FLOWERRAY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def no_network(monkeypatch):
    for name, value in NO_NETWORK.items():
        monkeypatch.setenv(name, value)
        monkeypatch.setenv(name.upper(), value)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "")


def test_vgg16_is_the_published_one():
    found = weights.load("vgg16", say=quiet)
    assert found.sha256 == BASES["vgg16"].weights_sha256
    assert [a.shape for a in found.arrays[:2]] == [(3, 3, 3, 64), (64,)]
    assert len(found.arrays) == 26


def test_a_damaged_cache_is_fetched_anew_or_told(empty_cache, no_network):
    empty_cache.mkdir()
    (empty_cache / "vgg16.npz").write_bytes(b"half a file")
    with pytest.raises(FlowerrayError) as failed:
        weights.load("vgg16", say=quiet)
    message = str(failed.value)
    assert "cache: " in message and "is damaged" in message
    assert "Keras' download: " in message and "package index" in message
    assert "--weights FILE" in message and "\n" not in message


def test_a_file_with_other_weights_is_refused(tmp_path, empty_cache):
    other = tmp_path / "other.npz"
    np.savez(other, **{"0000": np.ones(3, np.float32)})
    with pytest.raises(FlowerrayError, match="not vgg16's ImageNet weights"):
        weights.load("vgg16", str(other), quiet)
    with pytest.raises(FlowerrayError, match="no such file"):
        weights.load("vgg16", str(tmp_path / "none.h5"), quiet)
    (tmp_path / "text.h5").write_text("no hdf5")
    with pytest.raises(FlowerrayError, match=r"text.h5: .*file signature"):
        weights.load("vgg16", str(tmp_path / "text.h5"), quiet)


def test_a_file_fills_the_cache(arrays, tmp_path, empty_cache, no_network):
    file = tmp_path / "handed-over.npz"
    np.savez(file, **{f"{i:04d}": array for i, array in enumerate(arrays)})
    weights.fetch("vgg16", file, quiet)
    assert weights.load("vgg16", say=quiet).source == "cache"
    assert [w["base"] for w in weights.in_cache()] == ["vgg16"]
    (lock,) = weights.cache_directory().glob("*.lock")
    lock.unlink()
    lock.mkdir()  # as where one may read and not write
    assert weights.load("vgg16", say=quiet).source == "cache"


def test_random_weights_are_the_same_for_all_and_say_so(empty_cache, capsys):
    script = (
        "from flowerray.bases import weights\n"
        "print(weights.load('mobilenetv3small', 'random').sha256)"
    )
    both = [
        subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    outputs = [process.communicate()[0].splitlines() for process in both]
    assert outputs[0][-1] == outputs[1][-1] and len(outputs[0][-1]) == 64
    assert "RANDOM WEIGHTS" in outputs[0][0]
