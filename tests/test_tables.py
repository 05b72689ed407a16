"""Tables and lists as people export them: what is read, and what is told in one line."""

import os
import unicodedata

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flowerray.errors import FlowerrayError
from flowerray.settings import ExtractSettings
from flowerray.sources import answers, names, tables, uris
from flowerray.sources.columns import Columns
from flowerray.sources.labelled import photographs_to_extract
from flowerray.sources.listing import FOUND, photographs_named

ROWS = [(f"photos/{name}/{i}.jpg", name) for name in ("rose", "tulip") for i in range(3)]


@pytest.fixture
def here(tmp_path):
    """A directory with the photographs of ROWS, empty ones."""
    for uri, _ in ROWS:
        (tmp_path / uri).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / uri).touch()
    return tmp_path


def written(separator, header, end="\n", cells=lambda row: row):
    return header + end + "".join(separator.join(cells(row)) + end for row in ROWS)


def read(path, **columns):
    batches = photographs_named(str(path), Columns(**columns))
    table = pa.Table.from_batches(batches, FOUND)
    return list(zip(table["uri"].to_pylist(), table["label"].to_pylist(), strict=True))


def expected(here):
    return [(str(here / uri), label) for uri, label in ROWS]


def slashed(row):
    return row[0].replace("/", "\\"), row[1]


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        (written(";", "uri;label", "\r\n"), "utf-8-sig"),
        ("sep=,\r\n" + written(",", "uri,label", "\r\n"), "utf-8"),
        ("sep=;\r\n" + written(";", "uri;label", "\r\n"), "utf-8"),
        (written("\t", "uri\tlabel"), "utf-8"),
        (written("|", "uri|label"), "utf-8"),
        (written("\t", "uri\tlabel", "\r\n"), "utf-16"),
        (written(",", "uri,label"), "utf-16-le"),
        (written(",", "uri,label"), "utf-16-be"),
        (written(", ", "uri, label"), "utf-8"),
        (written(",", " URI ,Label"), "utf-8"),
        (written(",", "path,class"), "utf-8"),
        (written(",", "File Name,Category"), "utf-8"),
        (written(",", "uri,label", cells=slashed), "utf-8"),
        (written(",", "uri,label", cells=lambda r: (f'"{r[0]}"', r[1] + " ")), "utf-8"),
        (written(",", "uri,label,size", cells=lambda r: (*r, "64x48")), "utf-8"),
        (written(",", "uri,label", cells=lambda r: (*r, "")), "utf-8"),
        (written(",", ",uri,label", cells=lambda r: ("7", *r)), "utf-8"),
        (written(",", "uri,label") + ",\n,\n\n", "utf-8"),
    ],
)
def test_tables_of_many_makers_say_the_same(here, text, encoding):
    (here / "table.csv").write_text(text, encoding, newline="")
    assert read(here / "table.csv") == expected(here)


@pytest.mark.parametrize(
    "text",
    [
        "".join(f'"{u}"\n' for u, _ in ROWS),
        "".join(f"{u}  \r\n" for u, _ in ROWS),
        "# mine\n" + "".join(f"./{u}\n" for u, _ in ROWS),
        "".join(u.replace("/", "\\") + "\r\n" for u, _ in ROWS),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_lists_of_many_makers_say_the_same(here, text, encoding):
    (here / "list.txt").write_text(text, encoding, newline="")
    assert [uri for uri, _ in read(here / "list.txt")] == [uri for uri, _ in expected(here)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"uri,label\na.jpg,ros\xe9\n", r"line 2 is no UTF-8 .*iconv"),
        (b"uri,label\nros\xe9.jpg,rose\n", r"line 2 is no UTF-8"),
        (b"uri,label\0\na.jpg,rose\n", "line 1 has a NUL byte"),
        (
            b"uri,label\na.jpg,rose\na, copy.jpg,rose\n",
            "line 3 has 3 fields where the header has 2",
        ),
        (b"uri,label\na.jpg,rose\nb.jpg\n", "line 3 has 1 fields"),
        (b'uri,label\n"a.jpg,rose\nb.jpg,rose\n', "a quote may not be closed"),
        (b"photos/a.jpg,rose\n", "has no header"),
        (b"URI,Uri\na,b\n", "two columns URI"),
        (b"name,kind\na,b\n", "no uri column: name the one of name, kind by --uri-column"),
        (b"uri,label\n,rose\n", "line 2 has no uri"),
        (b"uri,label\nC:\\Users\\a.jpg,rose\n", r"line 2 names C:.*an absolute path of Windows"),
        (b"uri,split\na.jpg,fold1\n", "line 2 has split 'fold1'"),
        (b"\n\n", "is empty"),
    ],
)
def test_what_can_not_be_read_is_told_with_its_line(tmp_path, content, message):
    (tmp_path / "table.csv").write_bytes(content)
    with pytest.raises(FlowerrayError, match=message) as told:
        read(tmp_path / "table.csv")
    assert "\n" not in str(told.value)


def test_columns_are_guessed_and_said_or_named(here, capsys):
    (here / "t.csv").write_text(written(",", "where,kind"))
    assert read(here / "t.csv", uri="where", label="Kind") == expected(here)
    assert not capsys.readouterr().err
    (here / "t.csv").write_text(written(",", "image_path,species"))
    assert read(here / "t.csv") == expected(here)
    said = capsys.readouterr().err
    assert "column image_path is taken for the uri; --uri-column" in said
    assert "column species is taken for the label; --label-column" in said
    with pytest.raises(FlowerrayError, match="has no column kind: it has image_path, species"):
        read(here / "t.csv", label="kind")


def test_parquet_of_any_type_of_text_and_number(here):
    paths, labels = zip(*ROWS, strict=True)
    numbers = [int(label == "rose") for label in labels]

    def labelled(uri, label):
        pq.write_table(pa.table({"uri": uri, "label": label}), here / "t.parquet")
        return read(here / "t.parquet")

    for kind in (pa.string(), pa.large_string(), pa.string_view(), pa.binary()):
        assert labelled(pa.array(paths).cast(kind), pa.array(labels)) == expected(here)
    dictionary = pa.array(labels).dictionary_encode()
    assert labelled(pa.array(paths).dictionary_encode(), dictionary) == expected(here)
    texts = [str(number) for number in numbers]
    assert [label for _, label in labelled(paths, numbers)] == texts
    assert [label for _, label in labelled(paths, list(map(float, numbers)))] == texts
    assert labelled(paths, list(map(bool, numbers)))[0][1] == "True"
    assert labelled(paths, [float("nan")] * 6)[0][1] is None
    for uri, label, message in (
        (paths, [[label] for label in labels], "column label of .* is list"),
        ([{"bytes": b"", "path": p} for p in paths], labels, "holds the pictures themselves"),
    ):
        with pytest.raises(FlowerrayError, match=message):
            labelled(uri, label)


@pytest.mark.parametrize("scheme", ["file:", "file://", "file://localhost", "FILE://"])
def test_file_uris_are_paths(here, scheme):
    (here / "a b.jpg").touch()
    (here / "t.csv").write_text(f"uri,label\n{scheme}{here}/a%20b.jpg,rose\n")
    assert read(here / "t.csv") == [(str(here / "a b.jpg"), "rose")]


def test_a_directory_of_part_files_is_a_table_counted_from_its_parent(here):
    (here / "written.parquet").mkdir()
    for part in range(2):
        rows = ROWS[part * 3 : part * 3 + 3]
        table = pa.table({"uri": [u for u, _ in rows], "label": [name for _, name in rows]})
        pq.write_table(table, here / "written.parquet" / f"{part:06d}.parquet")
    (here / "written.parquet" / "_SUCCESS").touch()
    assert read(here / "written.parquet") == expected(here)
    for name in ("rose", "tulip"):
        (here / "hive" / f"label={name}").mkdir(parents=True)
        mine = pa.table({"uri": [uri for uri, label in ROWS if label == name]})
        pq.write_table(mine, here / "hive" / f"label={name}" / "part-0.parquet")
    assert read(here / "hive") == expected(here)
    settings = ExtractSettings(images=str(here / "hive"), out="-")
    assert sum(map(len, photographs_to_extract(settings))) == 6
    assert tables.parts_of(str(here / "photos")) is None


def test_names_that_people_hold_equal_are_equal(tmp_path):
    nfc, nfd = (unicodedata.normalize(form, "rosé") for form in ("NFC", "NFD"))
    (tmp_path / nfd).mkdir()
    (tmp_path / nfd / f"{nfd} 1.jpg").touch()
    (tmp_path / "t.csv").write_text(f"uri,label\n{nfc}/{nfc} 1.jpg,{nfd} \n")
    ((uri, label),) = read(tmp_path / "t.csv")
    assert os.path.exists(uri) and label == nfc
    assert uris.key(uri) == uris.key(str(tmp_path / nfc / f"{nfc} 1.jpg"))
    assert names.class_name(" \u200b") is None and names.class_name(" a b ") == "a b"
    assert names.alike(["Rose", "rose", "tulip", "tea rose", "tea_rose"]) == [
        ["Rose", "rose"],
        ["tea rose", "tea_rose"],
    ]


def test_a_list_names_files_that_are_no_utf8(tmp_path):
    with open(os.path.join(os.fsencode(tmp_path), b"ros\xe9.jpg"), "wb"):
        pass
    (tmp_path / "list.txt").write_bytes(b"ros\xe9.jpg\n")
    ((uri, _),) = read(tmp_path / "list.txt")
    assert uri.startswith("file://") and uri.endswith("ros%E9.jpg")


def said_in(path):
    table = answers.read(str(path))
    return dict(zip(table["uri"].to_pylist(), table["label"].to_pylist(), strict=True))


def test_truths_and_corrections_are_read_alike(here):
    (here / "t.csv").write_text("sep=;\nFile;Class\n\\photos\\rose\\0.jpg;rose \nb.jpg; \n")
    assert answers.truths(str(here / "t.csv")) == {
        "/photos/rose/0.jpg": "rose",
        "b.jpg": None,
    }
    (here / "c.csv").write_text("path;class\nphotos\\rose\\0.jpg;tulip\n", "utf-16")
    assert said_in(here / "c.csv") == {str(here / "photos/rose/0.jpg"): "tulip"}


def test_findings_of_check_are_corrections_of_what_is_mislabelled(here, capsys):
    (here / "findings.csv").write_text(
        "check,uri,other_uri,label,suggested_label,score,detail\n"
        "leakage,photos/rose/1.jpg,photos/rose/2.jpg,rose,,0,same bytes\n"
        "mislabelled,photos/rose/0.jpg,,rose,tulip,0.9,\n"
        "few_photographs,,,rose,,3,\n"
    )
    found = said_in(here / "findings.csv")
    assert found == {str(here / "photos/rose/0.jpg"): "tulip"}
    assert "the 1 suggested labels are taken, the 2 other" in capsys.readouterr().err
