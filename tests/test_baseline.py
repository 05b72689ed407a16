"""VGG16 with its top, from a made-up weights file in the real architecture's shapes.

The published file is 528 MB and can't be had offline. This one's dense layers are nearly all zeros
that HDF5 doesn't store; what is tested is that photographs, weights and names are put
together as Keras does it, not that the published weights know a daisy.
"""

import gc
import itertools
import json
import os
import subprocess
import sys

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from test_weights import NO_NETWORK

from flowerray.cli import main
from flowerray.commands.baseline import _predicted, _spread, baseline
from flowerray.errors import FlowerrayError
from flowerray.settings import BaselineSettings
from flowerray.sources.columns import Columns

pytestmark = pytest.mark.slow

NAMES = [f"name_of_class_{i}" for i in range(1000)]


CONVOLUTIONS = [3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]
DENSE = [7 * 7 * 512, 4096, 4096, 1000]


@pytest.fixture(scope="module")
def weights_file(tmp_path_factory):
    """Seeded weights in the layout and shapes of the file that Keras publishes."""
    path = tmp_path_factory.mktemp("weights") / "made-up.h5"
    rng = np.random.default_rng(0)
    shapes = [(3, 3, *pair) for pair in itertools.pairwise(CONVOLUTIONS)]
    shapes += list(itertools.pairwise(DENSE))
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [f"layer{i}".encode() for i in range(len(shapes))]
        for i, shape in enumerate(shapes):
            group = file.create_group(f"layer{i}")
            group.attrs["weight_names"] = [b"kernel", b"bias"]
            group["bias"] = np.zeros(shape[-1], np.float32)
            kernel = group.create_dataset("kernel", shape, np.float32, chunks=True)
            some = slice(None) if len(shape) == 4 else slice(1000, 1064)
            part = kernel[some]
            scale = (2 / part[..., 0].size) ** 0.5  # He's, so that nothing dies or explodes
            if shape[-1] == 1000:
                scale /= 64  # no class takes all of the softmax
            kernel[some] = rng.normal(0, scale, part.shape)
    return path


@pytest.fixture(scope="module")
def names_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("names") / "imagenet_class_index.json"
    path.write_text(json.dumps({str(i): [f"n{i:08d}", name] for i, name in enumerate(NAMES)}))
    return path


@pytest.fixture
def pile(tmp_path):
    """Photographs of VGG16's own size, so that nothing is resized, and a broken one."""
    rng = np.random.default_rng(1)
    for i in range(10):
        folder = tmp_path / "pile" / f"class{i // 5}"
        folder.mkdir(parents=True, exist_ok=True)
        patches = rng.integers(0, 256, (7, 7, 3), np.uint8)
        Image.fromarray(patches).resize((224, 224)).save(folder / f"{i}.png")
    (tmp_path / "pile" / "class0" / "2.png").write_bytes(b"no photograph")
    return tmp_path / "pile"


def test_it_says_what_keras_says(weights_file, names_file, pile, tmp_path, capsys):
    import keras

    out = tmp_path / "out"
    files = {"weights": str(weights_file), "class_names": str(names_file)}
    settings = BaselineSettings(images=str(pile), out=str(out), top_k=4, **files)
    done = baseline(settings)
    assert (done.photographs, done.rejected) == (10, {"not_an_image": 1})
    table = pq.read_table(out / "baseline.parquet")
    assert table.column_names == ["uri", "top_k", "error", "error_detail"]
    rows = table.to_pylist()
    assert [row["uri"] for row in rows] == sorted(str(p) for p in pile.rglob("*.png"))
    good = [row for row in rows if not row["error"]]
    assert [row["uri"][-5:] for row in rows if row["top_k"] is None] == ["2.png"]
    images = [keras.utils.img_to_array(keras.utils.load_img(row["uri"])) for row in good]
    prepared = keras.applications.vgg16.preprocess_input(np.stack(images))
    gc.collect()  # a model is half a gigabyte
    vgg16 = keras.applications.VGG16(weights=str(weights_file))
    for row, probabilities in zip(good, vgg16.predict(prepared, verbose=0), strict=True):
        best = np.argsort(-probabilities, kind="stable")[:4]
        assert [top["label"] for top in row["top_k"]] == [NAMES[i] for i in best]
        said = [top["probability"] for top in row["top_k"]]
        np.testing.assert_allclose(said, probabilities[best], rtol=1e-3)
    assert len({str(row["top_k"]) for row in rows}) == len(rows)  # each photograph has its own
    about = json.loads(table.schema.metadata[b"flowerray"])
    assert about["weights"] == "weights of made-up.h5"
    assert "not the one that Keras publishes" in capsys.readouterr().err
    assert Image.open(out / "baseline.png").size[0] == 1060

    del vgg16
    gc.collect()
    again = baseline(settings)
    assert [row["uri"] for row in again.rows] == [row["uri"] for row in rows]
    assert again.rejected == done.rejected
    assert len(pq.read_table(out / "baseline.parquet")) == len(rows)
    assert sorted(f.name for f in out.iterdir()) == ["baseline.parquet", "baseline.png"]


def test_a_few_of_many_are_from_everywhere(pile):
    uris = _spread(str(pile), Columns(), 4)
    assert [uri[-12:] for uri in uris] == [
        "class0/0.png",
        "class0/3.png",
        "class1/6.png",
        "class1/9.png",
    ]
    assert len(_spread(str(pile), Columns(), 25)) == 10


def test_a_photograph_above_the_limits_is_not_looked_at(pile):
    settings = BaselineSettings(images=str(pile), out="", max_megapixels=0.01)
    rows = _predicted(None, _spread(settings.images, settings.columns, 4), NAMES, settings)
    assert [row["error"] for row in rows] == ["too_large"] * 4


@pytest.fixture
def refusal(pile, tmp_path, capsys):
    def run(*options, out="out"):
        code = main(["baseline", str(pile), "--out", str(tmp_path / out), *map(str, options)])
        error = capsys.readouterr().err
        assert code == 1 and error.startswith("flowerray: ") and error.count("\n") == 1, error
        return error

    return run


def test_files_of_another_kind_are_refused(refusal, names_file, tmp_path):
    text = tmp_path / "text.h5"
    text.write_text("no hdf5")
    with h5py.File(tmp_path / "notop.h5", "w") as file:
        file.attrs["layer_names"] = [b"block1_conv1"]
        file.create_group("block1_conv1").attrs["weight_names"] = []
    names = ("--class-names", names_file)
    assert "no such file or directory; give Keras' vgg16_weights" in refusal(
        *names, "--weights", "none.h5"
    )
    assert "text.h5: " in refusal(*names, "--weights", text)
    notop = refusal(*names, "--weights", tmp_path / "notop.h5")
    assert "Layer count mismatch" in notop and "VGG16 with its top" in notop
    assert "No such file" in refusal("--class-names", tmp_path / "none.json")
    for content in (
        "{",
        "[]",
        '{"0": ["n0", "tench"]}',
        json.dumps({str(i): 7 for i in range(1000)}),
    ):
        (tmp_path / "names.json").write_text(content)
        assert 'keys "0" to "999"' in refusal("--class-names", tmp_path / "names.json")
    assert not (tmp_path / "out").exists()


def test_nothing_of_anothers_is_touched(refusal, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.doc").write_text("...")
    assert "something else (thesis.doc)" in refusal()
    assert "is a file" in refusal(out="out/thesis.doc")


def test_where_nothing_could_be_used_it_ends_with_an_error_after_the_rows(
    weights_file, names_file, tmp_path
):
    (tmp_path / "texts").mkdir()
    for i in range(3):
        (tmp_path / "texts" / f"{i}.jpg").write_text("no picture")
    files = {"weights": str(weights_file), "class_names": str(names_file)}
    with pytest.raises(FlowerrayError, match="3 photographs could be used: 3 not_an_image; give"):
        baseline(BaselineSettings(images=str(tmp_path / "texts"), out=str(tmp_path / "o"), **files))
    assert (tmp_path / "o" / "baseline.parquet").exists()


def test_offline_each_error_names_the_file_to_hand_in(pile, names_file, tmp_path):
    script = (
        "import sys; from flowerray.cli import main\n"
        "sys.exit(str([main(sys.argv[1:4]), main(sys.argv[1:])]))"
    )
    arguments = ["baseline", pile, f"--out={tmp_path / 'out'}", f"--class-names={names_file}"]
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, **NO_NETWORK, "KERAS_HOME": str(tmp_path / "keras")},
    )
    lines = [line for line in done.stderr.splitlines() if line != "baseline: starting"]
    tells_names, names, tells_weights, weights, codes = lines
    assert all(told.startswith("Downloading data") for told in (tells_names, tells_weights))
    assert "Tried Keras' download: URL fetch failure" in names
    assert "--class-names FILE (Keras' imagenet_class_index.json)" in names
    assert "Tried Keras' download: URL fetch failure" in weights
    assert "--weights FILE (Keras' vgg16_weights_tf_dim_ordering_tf_kernels.h5" in weights
    assert codes == "[1, 1]" and done.stdout == ""
    assert not (tmp_path / "out").exists()
