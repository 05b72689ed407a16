"""keras.json as other projects left it changes nothing here; an absent backend is told."""

import json
from importlib.util import find_spec

import pyarrow.parquet as pq
import pytest

LAST = {"floatx": "float32", "backend": "tensorflow", "image_data_format": "channels_last"}
KINDS = {
    "first": json.dumps({**LAST, "image_data_format": "channels_first"}),
    "half": json.dumps({**LAST, "floatx": "float16"}),
    "torch": json.dumps({**LAST, "backend": "torch"}),
    "theano": json.dumps({**LAST, "backend": "theano", "image_dim_ordering": "th"}),
    "broken": "{",
}


@pytest.mark.parametrize("kind", KINDS)
def test_jobs_run_whatever_keras_json_holds(kind, commands_in_one_ray, few, tmp_path):
    (tmp_path / "keras").mkdir()
    (tmp_path / "keras" / "keras.json").write_text(KINDS[kind])
    base = ("--base", "thumbnail", "--engine", "keras")
    commands_in_one_ray(
        ("extract", few.labelled, "--out", tmp_path / "f", *base),
        ("train", tmp_path / "f", "--out", tmp_path / "c"),
        ("label", few.pile, "--classifier", tmp_path / "c", "--out", tmp_path / "l"),
        KERAS_HOME=str(tmp_path / "keras"),
    )
    labels = [pq.read_table(shard)["label"] for shard in (tmp_path / "l" / "shards").iterdir()]
    assert sum(len(column) - column.null_count for column in labels) == 12
    assert (tmp_path / "keras" / "keras.json").read_text() == KINDS[kind]


@pytest.mark.parametrize("backend", ["theano", "numpy", "jax"])
def test_a_backend_that_is_absent_is_told_in_one_line(backend, command, few, fast, tmp_path):
    if find_spec("jax") is not None and backend == "jax":
        pytest.skip("it is installed")
    images = ("--base", "thumbnail", "--engine", "keras", "--out", tmp_path / "f")
    for job in (
        ("extract", few.labelled, *images),
        ("train", fast / "features", "--out", tmp_path / "c"),
    ):
        done = command(*job, KERAS_BACKEND=backend)
        assert done.returncode in (1, 2)
        assert f"KERAS_BACKEND is {backend}" in done.stderr.splitlines()[-1]
        assert "Traceback" not in done.stderr
