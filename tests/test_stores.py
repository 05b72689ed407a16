"""Stores: local, S3 by a real server that is slow and fails now and then, the web, fsspec's."""

import io
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import replace
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import urllib3
from conftest import free_port, troubles

from flowerray import stores
from flowerray.cli import main
from flowerray.commands.label import label
from flowerray.commands.verify import verify
from flowerray.errors import FlowerrayError, UsageError
from flowerray.outputs.schemas import LABELS
from flowerray.settings import ExtractSettings, LabelSettings
from flowerray.sources.labelled import photographs_to_extract
from flowerray.sources.listing import FOUND, photographs_to_label
from flowerray.sources.photographs import Limits, Rejected, read
from flowerray.stores import fetched
from flowerray.stores.folder import Folder


def served(address):
    """Bytes that were answered so far."""
    return int(urllib3.request("GET", f"{address}/troubles").data.split()[2])


def put(uri, data=b"x"):
    folder, _, name = uri.rpartition("/")
    Folder(folder).write(name, data)


def put_tree(directory, uri):
    for file in sorted(Path(directory).rglob("*")):
        if file.is_file():
            put(f"{uri}/{file.relative_to(directory)}", file.read_bytes())


@pytest.fixture(params=["local", "s3", "memory"])
def folder(request, tmp_path):
    if request.param == "s3":
        request.getfixturevalue("s3")
    roots = {"local": str(tmp_path), "s3": "s3://flowers", "memory": "memory://here"}
    return Folder.at(f"{roots[request.param]}/folder")


def test_a_folder_is_alike_in_every_store(folder):
    assert folder.names(".") == set() and not folder.exists("run.json")
    with pytest.raises(FileNotFoundError):
        folder.read("run.json")
    with pytest.raises(FileNotFoundError):
        folder.open("run.json")
    folder.write("run.json", b"one")
    folder.write("run.json", b"two")
    folder.write("shards/b c.parquet", b"3" * 300_000)
    folder.write("shards/a.parquet", b"")
    folder.hint("attempts/1.tried", b"1")
    assert folder.read("run.json") == b"two"
    assert folder.names(".") - {"tmp"} == {"run.json", "shards", "attempts"}
    assert folder.names("shards") == {"a.parquet", "b c.parquet"}
    opened = folder.open("shards/b c.parquet")
    opened.seek(299_990)
    assert opened.read(100) == b"3" * 10
    store = stores.store_at(folder.uri)
    listed = [entry for page in store.files(folder.file("shards")) for entry in page]
    assert [(uri.rpartition("/")[2], size) for uri, size in listed] == [
        ("a.parquet", 0),
        ("b c.parquet", 300_000),
    ]
    with pytest.raises(OSError, match="too large"):
        store.read(folder.file("shards/b c.parquet"), 1000)
    folder.remove("shards/a.parquet")
    folder.remove("shards/nothing")
    assert folder.names("shards") == {"b c.parquet"}
    folder.remove("shards")
    assert folder.names("shards") == set() and folder.read("run.json") == b"two"
    folder.remove(".")
    assert folder.names(".") == set()


def test_a_file_whose_writing_fails_never_appears(folder):
    folder.write("kept", b"before")
    for name in ("kept", "new"):
        with pytest.raises(ZeroDivisionError), folder.create(name) as stream:
            stream.write(b"half")
            raise ZeroDivisionError
    assert folder.read("kept") == b"before" and not folder.exists("new")
    folder.remove(".")


def test_a_large_table_is_read_in_parts(s3):
    folder = Folder("s3://flowers/large")
    table = pa.table({"n": pa.array(range(4_000_000))})
    with folder.create("n.parquet") as stream:
        pq.write_table(table, stream, row_group_size=100_000, compression="none")
    file = pq.ParquetFile(folder.open("n.parquet"))
    assert file.read_row_group(39)["n"][-1].as_py() == 3_999_999


def extracted(images, **options):
    settings = ExtractSettings(images=str(images), out="", **options)
    table = pa.Table.from_batches(photographs_to_extract(settings), FOUND)
    return table.to_pylist()


def listed(source):
    batches = photographs_to_label(source)
    return pa.Table.from_batches(batches, FOUND)["uri"].to_pylist()


def test_class_folders_in_a_bucket_are_those_of_a_directory(s3, tmp_path):
    tulips = [f"train/tulip/{i}.jpg" for i in range(3)]
    for name in (*tulips, "train/rose/b/1.jpg", "train/rose/z.jpg", "valid/rose/3.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    shutil.copytree(tmp_path / "valid" / "rose", tmp_path / "valid" / "tulip")
    put_tree(tmp_path, "s3://flowers/classes")
    for below in ("", "/train"):
        here, there = extracted(f"{tmp_path}{below}"), extracted(f"s3://flowers/classes{below}")
        for rows, root in ((here, str(tmp_path)), (there, "s3://flowers/classes")):
            for row in rows:
                row["uri"] = row["uri"].removeprefix(root)
        assert here == there and here
    with pytest.raises(FlowerrayError, match="no photographs found in s3://flowers/nothing"):
        extracted("s3://flowers/nothing")
    Folder("s3://flowers/classes").remove("valid")
    rows = extracted("s3://flowers/classes")  # then some of train are drawn
    assert {(row["label"], row["split"]) for row in rows} == {
        (label, split) for label in ("rose", "tulip") for split in ("train", "valid")
    }


def test_lists_tables_globs_and_odd_names_in_a_bucket(s3):
    root = "s3://flowers/odd"
    names = ["a b.jpg", "c#d?e=f.jpg", "deep/er/ü%20.jpg", "hun'dred\"&<.png"]
    for name in [*names, ".hidden.jpg", "deep/.tmp/x.jpg"]:
        put(f"{root}/{name}", name.encode())
    import boto3

    boto3.client("s3").put_object(Bucket="flowers", Key="odd/deep/", Body=b"")  # as consoles do
    assert listed(root) == listed(root + "/") == [f"{root}/{name}" for name in names]
    for name in names:
        assert read(f"{root}/{name}", None, Limits()) == name.encode()
    assert listed(f"{root}/**/*.jpg") == [f"{root}/{name}" for name in names[:3]]
    assert listed(f"{root}/*.jpg") == [f"{root}/{name}" for name in names[:2]]
    put("s3://flowers/lists/all.txt", b"../odd.jpg\ns3://flowers/odd/a b.jpg\n")
    expected = ["s3://flowers/lists/../odd.jpg", f"{root}/a b.jpg"]
    assert listed("s3://flowers/lists/all.txt") == expected
    put("s3://flowers/lists/all.csv", b"uri,size\na.jpg,3\n")
    assert listed("s3://flowers/lists/all.csv") == ["s3://flowers/lists/a.jpg"]
    table = io.BytesIO()
    pq.write_table(pa.table({"uri": [f"{root}/a b.jpg"]}), table)
    put("s3://flowers/lists/all.parquet", table.getvalue())
    assert listed("s3://flowers/lists/all.parquet") == [f"{root}/a b.jpg"]
    for source, said in (
        ("s3://flowers/lists/nothing.txt", "no such file"),
        ("s3://flowers/odd/*.gif", "no photographs found"),
        ("s3://nowhere/x", "no such bucket"),
        ("s3:///x", "needs a bucket"),
        ("sftpx://host/x", "sftpx"),
    ):
        with pytest.raises((FlowerrayError, UsageError), match=said):
            listed(source)


def test_a_key_that_the_store_can_not_list_is_named(s3):
    import boto3

    boto3.client("s3").put_object(Bucket="flowers", Key="empty//part.jpg", Body=b"x")
    with pytest.raises(FlowerrayError, match=r"empty//part\.jpg.*\.txt list"):
        listed("s3://flowers/empty")
    with pytest.raises(FlowerrayError, match="can't list s3://flowers/empty//part"):
        listed("s3://flowers/empty//part")
    with pytest.raises(UsageError, match="s3://flowers//out has a part that is empty"):
        Folder.at("s3://flowers//out")


def test_what_a_bucket_refuses_is_a_reject_with_its_reason(s3):
    for uri, reason in (
        ("s3://flowers/no.jpg", "missing"),
        ("s3://nowhere/no.jpg", "unreadable"),
        ("nope://flowers/no.jpg", "unreadable"),
        ("s3://no bucket/no.jpg", "unreadable"),
        ("s3://flowers/empty//part.jpg", "unreadable"),
    ):
        with pytest.raises(Rejected) as rejected:
            read(uri, None, Limits())
        assert rejected.value.reason == reason and "\n" not in rejected.value.detail
    put("s3://flowers/large.jpg", bytes(2000))
    with pytest.raises(Rejected) as rejected:
        read("s3://flowers/large.jpg", None, Limits(max_bytes=1000))
    assert rejected.value.reason == "too_large"


def test_the_three_jobs_in_a_bucket_give_the_labels_of_local_files(fast, s3, sample, tmp_path):
    local = ("label", sample.pile, "--classifier", fast / "classifier")
    local += ("--out", tmp_path / "labels")
    assert main([*map(str, local), "--min-confidence", "0.9"]) == 0
    put_tree(sample.labelled, "s3://flowers/labelled")
    put_tree(sample.pile, "s3://flowers/pile")
    before, out = troubles(s3), "s3://flowers/jobs"
    # The workers learn the endpoint from the settings, not from the environment.
    for arguments in (
        ("extract", "s3://flowers/labelled", "--out", f"{out}/features", "--base", "thumbnail"),
        (
            *("train", f"{out}/features", "--out", f"{out}/classifier"),
            *("--tensorboard", str(tmp_path / "logs")),
        ),
        (
            *("label", "s3://flowers/pile", "--classifier", f"{out}/classifier"),
            *("--out", f"{out}/labels", "--min-confidence", "0.9", "--format", "csv"),
            *("--gallery", f"{out}/labels.png"),
        ),
        ("verify", f"{out}/labels"),
        ("report", f"{out}/labels", "--out", f"{out}/labels.html"),
        ("export", f"{out}/labels", "--format", "jsonl", "--out", f"{out}/labels.jsonl"),
    ):
        assert main([*arguments, "--endpoint-url", s3]) == 0
    assert list((tmp_path / "logs").iterdir())
    requests, refused = (after - b for after, b in zip(troubles(s3), before, strict=True))
    assert requests > 200 and refused > 2
    here, there = (
        pa.concat_tables(
            pq.read_table(folder.open(f"shards/{name}"), schema=LABELS)
            for name in sorted(folder.names("shards"))
        ).to_pylist()
        for folder in (Folder(f"{tmp_path}/labels"), Folder("s3://flowers/jobs/labels"))
    )

    def told(rows):
        rows = sorted(rows, key=lambda row: row["uri"].rpartition("/pile/")[2])
        return [
            (row["uri"].rpartition("/pile/")[2], row["label"], row["error"], row["accepted"])
            for row in rows
        ]

    assert told(here) == told(there)
    assert sum(row["error"] is not None for row in there) == 4
    out = Folder("s3://flowers/jobs")
    assert out.names("labels") == {
        *("run.json", "manifest", "shards", "labels.csv", "review.parquet", "evidence.parquet")
    }
    assert out.names(".") >= {"labels.png", "labels.html", "labels.jsonl"}
    # Done already: nothing is computed again, and other settings are refused.
    again = LabelSettings(
        images="s3://flowers/pile",
        classifier="s3://flowers/jobs/classifier",
        out="s3://flowers/jobs/labels",
        min_confidence=0.9,
        endpoint_url=s3,
    )
    assert label(again).computed == 0
    with pytest.raises(FlowerrayError, match="other settings"):
        label(replace(again, top_k=1))
    put("s3://flowers/pile/zzz.jpg", (Path(sample.pile) / os.listdir(sample.pile)[0]).read_bytes())
    assert label(replace(again, append=True)).computed == 1 and verify(again.out).whole
    assert label(replace(again, overwrite=True)).computed == 1 + len(os.listdir(sample.pile))


def test_a_killed_job_in_a_bucket_goes_on_where_it_was(command, s3, sample, on_local_ray):
    put_tree(sample.labelled, "s3://flowers/again")
    out = Folder("s3://flowers/killed")
    arguments = ["extract", "s3://flowers/again", "--out", out.uri, "--base", "thumbnail"]
    arguments += ["--shard-size", "1", "--actors", "1", "--endpoint-url", s3, "--json"]
    process = subprocess.Popen(
        [sys.executable, "-m", "flowerray.cli", *arguments],
        stderr=subprocess.DEVNULL,
        env={**os.environ, **on_local_ray},
    )
    while not out.names("shards"):
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.wait()
    there = verify(out.uri).present
    done = command(*arguments, **on_local_ray)
    assert done.returncode == 0, done.stderr
    assert 0 < json.loads(done.stdout)["computed"] <= 30 - there
    assert verify(out.uri).whole and out.names(".") == {"run.json", "manifest", "shards"}


def test_an_endpoint_that_does_not_answer_is_told_at_once(command, tmp_path, monkeypatch):
    endpoint = f"http://127.0.0.1:{free_port()}"
    out = ("--out", tmp_path / "f", "--endpoint-url", endpoint)
    done = command("extract", "s3://flowers/pile", *out)
    assert done.returncode == 1 and f"no S3 server answers at {endpoint}" in done.stderr
    assert len(done.stderr.removeprefix("extract: starting\n").splitlines()) == 1


@pytest.fixture
def web(sample, tmp_path):
    """A web server of the sample's pile, that answers every third request with 503."""
    shutil.copytree(sample.pile, tmp_path / "pile" / "deep er")
    (tmp_path / "pile" / ".hidden").write_text("no")
    asked = []

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(tmp_path))

        def do_GET(self):
            asked.append(self.path)
            if len(asked) % 3 == 0:
                return self.send_error(503)
            return super().do_GET()

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_photographs_on_a_web_server(web, sample):
    uris = listed(f"{web}/pile")
    assert len(uris) == len(os.listdir(sample.pile))
    for uri in uris:
        name = uri.rpartition("/")[2]
        assert "/pile/deep%20er/" in uri
        data = (Path(sample.pile) / name).read_bytes()
        if data:
            assert read(uri, None, Limits()) == data
    with pytest.raises(Rejected) as rejected:
        read(f"{web}/pile/none.jpg", None, Limits())
    assert rejected.value.reason == "missing"
    with pytest.raises(UsageError, match="nothing can be written"):
        Folder.at(f"{web}/out").write("a", b"")


def test_of_a_feature_shard_in_a_bucket_only_the_columns_asked_for_are_fetched(s3):
    folder = Folder("s3://flowers/columns")
    features = pa.FixedSizeListArray.from_arrays(
        pa.array(np.random.default_rng(0).random(512 * 25088).astype(np.float16)), 25088
    )
    table = pa.table({"label": ["rose", "tulip"] * 256, "features": features})
    with folder.create("shard.parquet") as stream:
        pq.write_table(table, stream, compression="zstd")
    size = len(folder.read("shard.parquet"))
    before = served(s3)
    labels = pq.read_table(folder.open("shard.parquet", ["label"]), columns=["label"])
    assert labels["label"].to_pylist() == table["label"].to_pylist()
    came = served(s3) - before
    print(f"{came:,} of {size:,} bytes")
    assert came < 300_000 and size > 20_000_000
    assert pq.read_table(folder.open("shard.parquet")).equals(table)


def test_row_groups_alone_and_footers_of_any_length_are_fetched(s3):
    folder = Folder("s3://flowers/groups")
    table = pa.table({f"column {i}": range(4000) for i in range(40)})
    with folder.create("t.parquet") as stream:
        pq.write_table(table, stream, row_group_size=100)
    assert len(pq.read_metadata(folder.open("t.parquet")).to_dict()["row_groups"]) == 40
    file = pq.ParquetFile(folder.open("t.parquet", groups=[3, 17]))
    assert file.read_row_groups([3, 17])["column 5"].to_pylist() == [
        *range(300, 400),
        *range(1700, 1800),
    ]
    folder.write("no.parquet", b"no table" * 100_000)
    with pytest.raises(pa.ArrowInvalid):
        folder.open("no.parquet", ["a"])


def test_a_file_too_large_for_memory_is_fetched_to_disk(s3, monkeypatch):
    monkeypatch.setattr(fetched, "MEMORY_BYTES", 16 << 20)
    data = os.urandom(20 << 20)
    folder = Folder("s3://flowers/disk")
    folder.write("large", data)
    with folder.open("large") as file:
        assert isinstance(file, pa.OSFile) and file.read() == data
