"""Logins and signatures in uris: the photographs are read with them, and nothing keeps them."""

import base64
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pyarrow.parquet as pq
import pytest

from flowerray import stores
from flowerray.cli import main
from flowerray.errors import FlowerrayError, UsageError
from flowerray.outputs.record import read_output
from flowerray.outputs.shards import read_table
from flowerray.pipeline import tasks
from flowerray.settings import LabelSettings
from flowerray.sources.columns import Columns
from flowerray.stores import credentials

LOGIN = "ann:s3cr3tpassw0rd"
SIGNATURES = [
    "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAS3CR3T%2F20261127&X-Amz-Date=20261127T0{n}"
    "&X-Amz-Expires=60&X-Amz-SignedHeaders=host&x-id=GetObject&X-Amz-Signature=s3cr3t{n}",
    "AWSAccessKeyId=AKIAS3CR3T&Expires=17{n}&Signature=s3cr3t{n}%3D",
    "X-Goog-Algorithm=GOOG4-RSA-SHA256&X-Goog-Credential=s3cr3t&X-Goog-Signature=s3cr3t{n}",
    "sv=2022-11-02&st=2026-11-27&se=2026-11-2{n}&sr=b&sp=r&sig=s3cr3t{n}%3D",
    "Expires=17{n}&Policy=s3cr3t{n}&Signature=s3cr3t{n}&Key-Pair-Id=AKIAS3CR3T",
    "OSSAccessKeyId=s3cr3t&Expires=17{n}&Signature=s3cr3t{n}&security-token=s3cr3t",
    "access_token=s3cr3t{n}",
    "api_key=s3cr3t{n}",
    "key=AIzaS3cr3tS3cr3tS3cr3t{n}",
    "authToken=s3cr3t{n}",
]


@pytest.fixture
def web(sample):
    """A server that answers who has the login, or a query with `s3cr3t` in it."""
    entered = f"Basic {base64.b64encode(LOGIN.encode()).decode()}"

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(Path(sample.pile).parent))

        def do_GET(self):
            query = parse_qs(urlsplit(self.path).query)
            if "s3cr3t" not in str(query).lower() and self.headers["Authorization"] != entered:
                return self.send_error(403)
            return super().do_GET()

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()


def kept_in(directory):
    """All that the files below `directory` say, Parquet's rows and metadata among it."""
    said = []
    for file in sorted(Path(directory).rglob("*")):
        if file.suffix == ".parquet":
            table = pq.read_table(file, partitioning=None)
            said += [str(table.schema.metadata), str(table.to_pydict())]
        elif file.is_file():
            said.append(file.read_bytes().decode("latin-1"))
    return "\n".join(said)


def table_of(path, web, sample, day, login=False, label=False):
    """Photographs of the sample at signed addresses, or at ones with a login."""
    lines = ["uri,label" if label else "uri"]
    folder = Path(sample.labelled if label else sample.pile)
    files = [f for f in sorted(folder.rglob("*")) if f.is_file()]
    for i, file in enumerate(files):
        at = file.relative_to(folder.parent).as_posix()
        query = "" if login else "?" + SIGNATURES[i % len(SIGNATURES)].format(n=day)
        host = f"{LOGIN}@{web}" if login else web
        lines.append(f"http://{host}/{at}{query}" + (f",{file.parent.name}" if label else ""))
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("login", [False, True], ids=["signed", "login"])
def test_no_output_keeps_what_lets_in(login, web, sample, local_ray, tmp_path, capfd):
    labelled = table_of(tmp_path / "labelled.csv", web, sample, 1, login, label=True)
    pile = table_of(tmp_path / "pile.csv", web, sample, 1, login)
    kept = tmp_path / "kept"
    features, classifier, labels = (str(kept / name) for name in ("f", "c", "l"))
    truth = tmp_path / "corrections.csv"

    def run(*command):
        assert main([str(part) for part in command]) == 0

    extract = ("extract", labelled, "--out", features, "--base", "thumbnail")
    label = ("label", pile, "--classifier", classifier, "--out", labels, "--format", "csv")
    label += ("--min-confidence", "0.9", "--gallery", kept / "gallery.png")
    run(*extract)
    run("train", features, "--out", classifier, "--recipe", "logistic")
    run(*label)
    rows = read_table(read_output(labels, "labels"), ["uri", "label", "error"]).to_pylist()
    good = [row for row in rows if row["label"]]
    assert len(good) == len(rows) - 4  # the sample's own broken files
    for form in ("csv", "jsonl", "labelstudio"):
        run("export", labels, "--format", form, "--out", kept / f"export.{form}")
    run("report", labels, "--out", kept / "labels.html")
    run("report", classifier, "--out", kept / "classifier.html")
    run("check", features, "--out", kept / "findings.csv")
    run("verify", labels)
    # Tomorrow's signatures are of the same photographs.
    table_of(labelled, web, sample, 2, login, label=True)
    table_of(pile, web, sample, 2, login)
    for command in (extract, label):
        run(*command, "--json")
        assert '"computed": 0' in capfd.readouterr().out
    run(*extract, "--sync")
    lines = pile.read_text().splitlines()
    truth.write_text("uri,label\n" + "\n".join(f"{line},rose" for line in lines[1:3]) + "\n")
    run("train", features, "--out", kept / "c2", "--recipe", "logistic", "--corrections", truth)
    said = "".join(capfd.readouterr())
    for secret in ("s3cr3t", "passw0rd", "ann:"):
        assert secret not in kept_in(kept).lower()
        assert secret not in said.lower()
    assert f"http://{web}/" in str(good[0]["uri"])


def test_retrying_rejected_photographs_has_the_new_signatures(
    fast, web, sample, local_ray, tmp_path, capsys
):
    pile, out = tmp_path / "pile.txt", str(tmp_path / "labels")
    name = next(f.name for f in sorted(Path(sample.pile).iterdir()) if f.stat().st_size > 100)
    other = sorted(f.name for f in Path(sample.pile).iterdir() if f.stat().st_size > 100)[1]
    at = f"http://{web}/{Path(sample.pile).name}"
    command = ["label", str(pile), "--classifier", str(fast / "classifier"), "--out", out]
    pile.write_text(f"{at}/{name}?sig=s3cr3t\n{at}/{other}?sig=expired\n")
    assert main(command) == 0
    pile.write_text(f"{at}/{name}?sig=s3cr3t\n{at}/{other}?sig=s3cr3ts\n")
    assert main([*command, "--retry-rejected"]) == 0
    errors = read_table(read_output(out, "labels"), ["error"])["error"].to_pylist()
    assert errors == [None, None]


def test_a_directory_behind_a_login_is_listed_and_read(fast, web, sample, local_ray, tmp_path):
    labels = str(tmp_path / "labels")
    images = f"http://{LOGIN}@{web}/{Path(sample.pile).name}"
    assert LabelSettings(images=images, classifier="c", out="o").images == images.replace(
        f"{LOGIN}@", ""
    )
    command = ["label", images, "--classifier", str(fast / "classifier"), "--out", labels]
    assert main(command) == 0
    assert "passw0rd" not in kept_in(labels)


@pytest.mark.parametrize("signature", SIGNATURES)
def test_a_signed_address_is_one_photograph_from_day_to_day(signature):
    at = "https://host/a%20b.jpg"
    for day in (1, 2):
        whole = f"{at}?{signature.format(n=day)}"
        assert credentials.bare(whole) == at and credentials.signed(at) == whole
        more = f"{at}?w=640&{signature.format(n=day)}&versionId=3"
        assert credentials.bare(more) == f"{at}?w=640&versionId=3"


@pytest.mark.parametrize(
    "uri",
    [
        "https://host/image?id=3&size=s&design=4",
        "https://host/get?key=flowers/1.jpg",
        "s3://bucket/a@b/c?token=3.jpg",
        "file:///home/a@b/c?token=3.jpg",
        "/home/a@b/c?token=3.jpg",
        "abfss://container@account/x.jpg",
        "sftp://ann@host/x.jpg",
    ],
)
def test_what_lets_nobody_in_stays(uri):
    assert credentials.bare(uri) == uri == credentials.signed(uri)


def test_other_stores_lose_the_password_alone():
    assert credentials.bare("sftp://ann:s3cr3t@host:22/a@b.jpg") == "sftp://ann@host:22/a@b.jpg"
    assert credentials.login_of("sftp://ann@host:22/other.jpg") == "ann:s3cr3t"
    whole = "memory://ann:s3cr3t@place/a"
    at = credentials.bare(whole)
    with stores.store_at(at).create(at, "memory://ann@place") as stream:
        stream.write(b"x")
    assert stores.source_at(at).read(at) == b"x"
    bucket = credentials.bare("s3://KEY:s3cr3t@bucket/a.jpg")
    with pytest.raises(UsageError, match="with a password") as raised:
        stores.source_at(bucket)
    assert "s3cr3t" not in str(raised.value)


def test_photographs_that_only_a_signature_tells_apart_are_refused(tmp_path):
    from flowerray.sources.listing import photographs_named

    path = tmp_path / "list.csv"
    path.write_text("uri\nhttps://host/get?token=1\nhttps://host/get?token=2\n")
    with pytest.raises(FlowerrayError, match="line 3 names https://host/get as another row") as one:
        list(photographs_named(str(path), Columns()))
    assert "token" not in str(one.value)


def test_workers_have_what_their_driver_knows(local_ray):
    at = credentials.bare("https://host/only.jpg?sig=s3cr3t")
    assert tasks.run_once(credentials.signed, at) == "https://host/only.jpg?sig=s3cr3t"
