import os
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flowerray.errors import FlowerrayError, UsageError
from flowerray.outputs.manifest import Manifest, rows_of, write_listing
from flowerray.settings import ExtractSettings
from flowerray.sources.columns import Columns
from flowerray.sources.labelled import check_apart, photographs_to_extract
from flowerray.sources.listing import FOUND, photographs_named, photographs_to_label
from flowerray.stores import local_path
from flowerray.stores.folder import Folder


def tree(root, **counts):
    for folder, count in counts.items():
        directory = root / folder.replace("__", "/")
        directory.mkdir(parents=True, exist_ok=True)
        for i in range(count):
            (directory / f"{i:05d}.jpg").write_bytes(b"x" * (i + 1))
    return root


def extracted(images, **settings):
    batches = photographs_to_extract(ExtractSettings(images=str(images), out="unused", **settings))
    return pa.Table.from_batches(batches, FOUND).to_pylist()


def counted(rows):
    pairs = sorted((row["label"], row["split"]) for row in rows)
    return {pair: pairs.count(pair) for pair in pairs}


def test_class_folders_are_split_by_class(tmp_path):
    rows = extracted(tree(tmp_path, rose=20, tulip=40))
    assert counted(rows) == {
        ("rose", "train"): 18,
        ("rose", "valid"): 2,
        ("tulip", "train"): 36,
        ("tulip", "valid"): 4,
    }
    assert rows[0]["size"] == 1 and os.path.isabs(rows[0]["uri"])


def test_the_same_seed_gives_the_same_split_anywhere(tmp_path):
    def names(root, seed):
        rows = extracted(root, seed=seed)
        return {os.path.relpath(r["uri"], root) for r in rows if r["split"] == "valid"}

    here, there = tree(tmp_path / "a", rose=30, tulip=30), tree(tmp_path / "b", tulip=30, rose=30)
    assert names(here, 1) == names(there, 1) != names(here, 2)


def test_numbers_per_class(tmp_path):
    root = tree(tmp_path, rose=12, tulip=30)
    rows = extracted(root, train_per_class=7, valid_per_class=5)
    assert set(counted(rows).values()) == {7, 5} and len(rows) == 24
    with pytest.raises(FlowerrayError, match="'rose' has 12 photographs"):
        extracted(root, train_per_class=8, valid_per_class=5)


def test_the_articles_layout_keeps_its_split(tmp_path):
    layout = {"train__rose": 3, "train__tulip": 4, "valid__rose": 1, "valid__tulip": 2}
    rows = extracted(tree(tmp_path, **layout))
    assert counted(rows) == {
        ("rose", "train"): 3,
        ("rose", "valid"): 1,
        ("tulip", "train"): 4,
        ("tulip", "valid"): 2,
    }


def test_a_flat_pile_has_neither_label_nor_split(tmp_path):
    rows = extracted(tree(tmp_path, pile=3) / "pile")
    assert [(row["label"], row["split"]) for row in rows] == [(None, None)] * 3


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        ({"rose": 3}, "only one class"),
        ({"rose": 3, "tulip": 0}, "'tulip' has no photographs"),
        ({"rose": 3, "tulip": 1}, "'tulip' has 1 photograph and none of them to valid"),
        ({"valid__rose": 2, "valid__tulip": 2}, "valid/ but no train/"),
        ({"train": 2, "test": 2}, "no folder a class in them"),
        ({"train__rose": 2, "train__tulip": 2, "valid__rose": 1}, "'tulip'.*none of them to valid"),
        ({}, "no photographs found"),
    ],
)
def test_sets_that_can_not_be_trained_on(tmp_path, folders, message):
    with pytest.raises(FlowerrayError, match=message):
        extracted(tree(tmp_path, **folders))


def test_lists_tables_and_globs(tmp_path):
    root = tree(tmp_path / "photographs", rose=3, tulip=3)
    names = [str(p.relative_to(tmp_path)) for p in sorted(root.rglob("*.jpg"))]
    labels = ["rose"] * 3 + ["tulip"] * 3
    (tmp_path / "list.txt").write_text("\n".join(names) + "\n\n")
    (tmp_path / "table.csv").write_text(
        "uri,label\n" + "".join(f"{n},{label}\n" for n, label in zip(names, labels, strict=True))
    )
    pq.write_table(pa.table({"uri": names, "label": labels}), tmp_path / "table.parquet")
    expected = [str(tmp_path / name) for name in names]

    def uris(source):
        batches = photographs_to_label(str(source))
        return pa.Table.from_batches(batches, FOUND)["uri"].to_pylist()

    assert uris(tmp_path / "list.txt") == expected
    assert uris(tmp_path / "table.csv") == uris(tmp_path / "table.parquet") == expected
    assert uris(root / "**" / "*.jpg") == uris(root) == expected
    (tmp_path / "list.txt").write_text("\n".join(names), encoding="utf-8-sig")  # as Notepad does
    assert uris(tmp_path / "list.txt") == expected
    split = counted(extracted(tmp_path / "table.csv", valid_per_class=1))
    assert split[("rose", "valid")] == split[("tulip", "valid")] == 1


def test_rows_without_a_label_are_left_out_and_counted(tmp_path, capsys):
    rows = [*((f"{i}.jpg", "ab"[i % 2]) for i in range(8)), ("8.jpg", ""), ("9.jpg", "")]
    (tmp_path / "t.csv").write_text("uri,label\n" + "".join(f"{u},{n}\n" for u, n in rows))
    assert len(extracted(tmp_path / "t.csv")) == 8
    assert "2 rows without a label are left out" in capsys.readouterr().err


def test_a_directory_that_goes_while_listing_is_a_row(tmp_path):
    root = tree(tmp_path, a=2, b=2)
    listed = photographs_to_label(str(root))
    first = next(listed)
    shutil.rmtree(root / "b")
    rest = [batch["uri"].to_pylist() for batch in listed]
    assert len(first) == 2 and rest == [[str(root / "b")]]


def test_a_table_of_anothers_making(tmp_path):
    """Labels that other tools take for nothing, captions of several lines, numbers that end."""
    rows = ["uri,label,caption,number", 'a.jpg,NA,"two\nlines",1', "b.jpg,null,,", "c.jpg,,x,17a"]
    (tmp_path / "table.csv").write_text("\n".join(rows) + "\n" + "d.jpg,nan,x,1\n" * 200_000)
    batches = photographs_named(str(tmp_path / "table.csv"), Columns())
    found = pa.Table.from_batches(batches, FOUND)
    assert found["label"].to_pylist()[:4] == ["NA", "null", None, "nan"]
    assert len(found) == 200_003 and found["uri"][0].as_py() == str(tmp_path / "a.jpg")
    for text in (
        "\ufeffuri,label\r\na.jpg,rose\r\n",
        "uri,label\ra.jpg,rose\r",
        '\n"uri","label"\na.jpg,rose\n',
    ):
        (tmp_path / "odd.csv").write_text(text, newline="")
        (batch,) = photographs_named(str(tmp_path / "odd.csv"), Columns())
        assert batch["label"].to_pylist() == ["rose"]
    pq.write_table(pa.table({"uri": [b"a.jpg"], "bytes": [b"x"]}), tmp_path / "table.parquet")
    (batch,) = photographs_to_label(str(tmp_path / "table.parquet"))
    assert batch["uri"].to_pylist() == [str(tmp_path / "a.jpg")]


def test_names_as_uris_and_globs_of_names_that_are_no_utf8(tmp_path):
    root = tree(tmp_path / "my photos", rose=3, tulip=3)
    there = photographs_to_label(f"file://{root}".replace(" ", "%20"))
    assert sum(len(batch) for batch in there) == 6
    assert len(extracted(f"file://{root}")) == 6
    with open(os.path.join(os.fsencode(root), b"\xff.jpg"), "wb") as file:
        file.write(b"x")
    (batch,) = photographs_to_label(f"{root}/*.jpg")
    (uri,) = batch["uri"].to_pylist()
    assert os.path.exists(local_path(uri))


def test_results_are_not_written_among_the_photographs(tmp_path):
    root = tree(tmp_path / "pile", sub=1)
    (tmp_path / "link").symlink_to(root)
    for written in (root, root / "labels", root / "sub" / ".." / "labels", tmp_path / "link/l.png"):
        with pytest.raises(UsageError, match=r"is inside of .*: choose a place beside it"):
            check_apart(str(root), str(written))
    for written in (tmp_path / "pile-labels", root / ".labels", tmp_path, "s3://pile/labels"):
        check_apart(str(root), str(written))
    check_apart(f"{root}/*.jpg", str(root / "labels"))
    (tmp_path / "elsewhere").mkdir()
    (root / "leads-out").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="is inside of"):
        check_apart(str(root), str(root / "leads-out" / "labels"))
    labelled = tree(tmp_path / "set", train__rose=1, valid__rose=1)
    check_apart(str(labelled), str(labelled / "features"), labelled=True)
    for written in (labelled / "train" / "features", labelled):
        with pytest.raises(UsageError, match="is inside of"):
            check_apart(str(labelled), str(written), labelled=True)
    with pytest.raises(UsageError, match="is inside of"):
        check_apart(str(labelled / "train"), str(labelled / "train/f"), labelled=True)
    with pytest.raises(UsageError, match="is inside of"):
        check_apart("s3://pile/a/", "s3://pile/a/labels")
    check_apart("s3://pile/a", "s3://pile/ab")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("table.csv", "name,label\na,b\n", "no uri column: name the one of name, label"),
        ("table.csv", "", "is empty"),
        ("table.parquet", "not parquet", "can't read"),
        ("photo.jpg", "x", "is a file"),
    ],
)
def test_sources_that_make_no_sense(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(FlowerrayError, match=message):
        list(photographs_to_label(str(tmp_path / name)))
    with pytest.raises(FlowerrayError, match="no such file"):
        list(photographs_to_label(str(tmp_path / "nowhere")))


def test_strange_names_links_and_hidden_files(tmp_path):
    root = tree(tmp_path / "pile", sub=1)
    (root / ".hidden.jpg").write_bytes(b"x")
    (root / ".git").mkdir()
    (root / ".git" / "object.jpg").write_bytes(b"x")
    (root / "sub" / "circle").symlink_to(root)
    (root / "dangling.jpg").symlink_to(tmp_path / "nowhere")
    os.mkfifo(root / "pipe.jpg")
    odd = [b"new\nline.jpg", b"'quoted\".jpg", b"sp ace.jpg", b"not-utf8-\xff\xfe.jpg", b"x" * 255]
    for name in odd:
        with open(os.path.join(os.fsencode(root), name), "wb") as file:
            file.write(name)
    batches = list(photographs_to_label(str(root)))
    rows = pa.Table.from_batches(batches, FOUND).to_pylist()
    names = {os.path.basename(os.fsencode(local_path(row["uri"]))): row["size"] for row in rows}
    assert names == {**{name: len(name) for name in odd}, b"dangling.jpg": None, b"00000.jpg": 1}
    for row in rows:
        if row["size"] is not None and b"00000" not in os.fsencode(row["uri"]):
            with open(local_path(row["uri"]), "rb") as file:
                assert file.read() in odd


def test_manifest_rows_come_back_shard_by_shard(tmp_path, monkeypatch):
    monkeypatch.setattr(f"{Manifest.__module__}.ROWS_A_GROUP", 8)
    monkeypatch.setattr(f"{Manifest.__module__}.ROWS_A_PART", 32)
    root, folder = tree(tmp_path / "pile", a=41, b=36), Folder.at(tmp_path / "out")
    found = photographs_to_label(str(root))
    manifest = Manifest((write_listing(found, folder, "manifest", 5),))
    assert manifest.rows == 77
    assert len(list((tmp_path / "out" / "manifest").iterdir())) == 3
    tables = [rows_of(folder, manifest, shard) for shard in manifest.shards()]
    rows = pa.concat_tables(tables)
    assert rows["image_id"].to_pylist() == list(range(77))
    assert rows["uri"].to_pylist() == [str(p) for p in sorted(root.rglob("*.jpg"))]
    for part in (tmp_path / "out" / "manifest").iterdir():
        part.write_bytes(b"damaged")
    with pytest.raises(FlowerrayError, match=r"can't read .*manifest/000000000064.parquet: .*"):
        rows_of(folder, manifest, manifest.shards()[-1])


def test_the_fingerprint_names_the_photographs(tmp_path):
    root, out = tree(tmp_path / "pile", a=5), Folder.at(tmp_path / "out")

    def fingerprint(name):
        batches = photographs_to_label(str(root))
        return write_listing(batches, out, name, None).fingerprint

    first = fingerprint("one")
    assert fingerprint("two") == first
    (root / "a" / "00002.jpg").write_bytes(b"changed")
    assert fingerprint("three") != first
