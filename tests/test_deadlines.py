"""Nothing waits for ever and nothing dies for ever: reads, decoders and workers that don't come
back."""

import os
import time

import pyarrow.dataset
import pytest
from chaos import server_that_trickles
from PIL import Image

from flowerray.cli import main
from flowerray.commands.label import label
from flowerray.commands.verify import verify
from flowerray.errors import FlowerrayError
from flowerray.settings import LabelSettings
from flowerray.sources.photographs import Limits, Rejected, read
from flowerray.stores import web

HANGS = """
import time
from PIL import BmpImagePlugin, Image, ImageFile

class Hangs(ImageFile.ImageFile):
    format = "BMP"
    def _open(self):
        {hang}

Image.register_open("BMP", Hangs, lambda head: head.startswith(b"BM"))
"""


def rows_of(out):
    return pyarrow.dataset.dataset(out / "shards").to_table().sort_by("image_id").to_pylist()


def plugin(tmp_path, text):
    (tmp_path / "plugin").mkdir()
    (tmp_path / "plugin" / "sitecustomize.py").write_text(text)
    return {"PYTHONPATH": str(tmp_path / "plugin")}


@pytest.fixture
def pictures(tmp_path):
    (tmp_path / "pile").mkdir()
    for i in range(6):
        Image.new("RGB", (40, 40), (40 * i, 80, 200)).save(tmp_path / "pile" / f"{i}.jpg")
    return tmp_path / "pile"


def test_what_hangs_is_unreadable_and_holds_up_nothing_else(fast, local_ray, pictures, tmp_path):
    """A server that sends a byte now and then, a named pipe, a device, a socket."""
    os.mkfifo(tmp_path / "pipe.jpg")
    with server_that_trickles() as port:
        names = [f"pile/{i}.jpg" for i in range(6)]
        names[2:2] = [f"http://127.0.0.1:{port}/a.jpg", "pipe.jpg", "/dev/zero", "/dev/tty"]
        (tmp_path / "list.txt").write_text("".join(f"{name}\n" for name in names))
        summary = label(
            LabelSettings(
                images=tmp_path / "list.txt",
                classifier=fast / "classifier",
                out=tmp_path / "labels",
                read_timeout=1,
            )
        )
    assert summary.rejected == {"unreadable": 4}
    details = [row["error_detail"] for row in rows_of(tmp_path / "labels")]
    assert details[2] == "not read in 1 s; --read-timeout is the limit"
    assert details[3] == details[4] == "not a regular file"
    assert [bool(detail) for detail in details] == [False] * 2 + [True] * 4 + [False] * 4


def test_a_read_of_a_pipe_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(Rejected) as refused:
        read(str(tmp_path / "pipe"), None, Limits(read_seconds=3600))
    assert (refused.value.reason, refused.value.detail) == ("unreadable", "not a regular file")


def test_a_storage_that_answers_no_more_ends_the_job(monkeypatch):
    from flowerray.sources import deadline

    monkeypatch.setattr(deadline, "MOST_OVERDUE", 2)
    with server_that_trickles() as port:
        for _ in range(2):
            with pytest.raises(Rejected):
                read(f"http://127.0.0.1:{port}/a.jpg", None, Limits(read_seconds=0.1))
        with pytest.raises(FlowerrayError, match=r"2 reads have not ended after 0\.1 s each"):
            read(f"http://127.0.0.1:{port}/a.jpg", None, Limits(read_seconds=0.1))


@pytest.mark.parametrize(
    "hang", ["time.sleep(3600)", "import re; re.match('(a+)+b', 'a' * 60)"], ids=["free", "locked"]
)
def test_a_decoder_that_hangs_costs_one_photograph(command, fast, pictures, tmp_path, hang):
    """Once it lets others run, once it holds Python's lock: a regular expression without end."""
    (pictures / "3b.jpg").write_bytes(b"BM" + bytes(100))
    out = tmp_path / "labels"
    done = command(
        *("label", pictures, "--classifier", fast / "classifier", "--out", out),
        *("--read-timeout", 2, "--decode-timeout", 2, "--actors", 1),
        **plugin(tmp_path, HANGS.format(hang=hang)),
    )
    assert done.returncode == 0, done.stderr
    crashed = [row for row in rows_of(out) if row["error"]]
    assert [(row["error"], os.path.basename(row["uri"])) for row in crashed] == [
        ("crashed", "3b.jpg")
    ]
    assert verify(str(out)).whole


DIES = """
import numpy

def dies(*arrays):
    {death}

stack = numpy.stack
numpy.stack = lambda arrays, *more: dies() if len(arrays) == 6 else stack(arrays, *more)
"""


@pytest.mark.parametrize(
    ("death", "told"),
    [("import os; os.abort()", "Aborted"), ("import os; os.kill(os.getpid(), 9)", "memory")],
    ids=["aborts", "killed"],
)
def test_an_engine_that_dies_ends_the_job_after_a_few_times(
    command, fast, pictures, tmp_path, death, told
):
    """It dies of a batch and not of a photograph, so reading each alone helps nothing."""
    started = time.monotonic()
    done = command(
        *("label", pictures, "--classifier", fast / "classifier", "--out", tmp_path / "labels"),
        *("--actors", 1),
        **plugin(tmp_path, DIES.format(death=death)),
    )
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert "5 workers died at shards/000000000000.parquet" in last and told in last, done.stderr
    assert len(done.stderr.splitlines()) < 30
    assert time.monotonic() - started < 500


def test_workers_that_die_before_they_are_ready_end_the_job(command, fast, pictures, tmp_path):
    """Their own word is in the line."""
    text = """
import sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "openvino._pyopenvino" and "default_worker" in sys.argv[0]:
            import os
            os.abort()

sys.meta_path.insert(0, Finder())
"""
    done = command(
        *("label", pictures, "--classifier", fast / "classifier", "--out", tmp_path / "labels"),
        *("--actors", 2),
        **plugin(tmp_path, text),
    )
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert "workers died before they were ready" in last and "Aborted" in last, done.stderr
    assert len(done.stderr.splitlines()) < 30


def test_a_table_that_trickles_or_is_a_pipe_ends_in_a_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(web, "EACH_SECONDS", 1)
    os.mkfifo(tmp_path / "pipe.csv")
    with server_that_trickles() as port:
        for table, said in (
            (f"http://127.0.0.1:{port}/list.csv", "fewer than 65,536 bytes a minute"),
            (tmp_path / "pipe.csv", "is a pipe or a device: save the list as a file"),
        ):
            command = ["extract", str(table), "--out", str(tmp_path / "out")]
            assert main(command) == 1
            error = capsys.readouterr().err
            assert error.startswith("flowerray: ") and error.count("\n") == 1 and said in error


def test_a_pipe_of_corrections_is_not_waited_for(fast, tmp_path, capsys):
    os.mkfifo(tmp_path / "pipe.csv")
    command = ["train", str(fast / "features"), "--out", str(tmp_path / "out")]
    assert main([*command, "--corrections", str(tmp_path / "pipe.csv")]) == 1
    assert "not a regular file" in capsys.readouterr().err
