"""What lies in an output: nothing of the user's is touched, and one job at a time writes there."""

import json
import os
import subprocess
import sys
import time

import pytest
from test_stores import s3  # noqa: F401

from flowerray import lease
from flowerray.errors import FlowerrayError
from flowerray.export import export
from flowerray.extract import extract
from flowerray.label import label
from flowerray.lease import _Owner, held
from flowerray.settings import ExportSettings, ExtractSettings, LabelSettings, TrainSettings
from flowerray.storage import Folder
from flowerray.train import train
from flowerray.verify import verify

NAMES = ("tmp", "manifest", "attempts", "shards", "checkpoint", ".flowerray", "notes")


def job(what, sample, fast, out, **options):
    """Run one kind of job into `out`."""
    if what == "extract":
        extract(ExtractSettings(images=sample.labelled, out=out, base="thumbnail", **options))
    elif what == "train":
        train(TrainSettings(features=fast / "features", out=out, recipe="logistic", **options))
    else:
        classifier = fast / "classifier"
        label(LabelSettings(images=sample.pile, classifier=classifier, out=out, **options))


def tree(directory):
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("what", ["extract", "train", "label"])
def test_a_folder_of_the_users_is_refused_and_stays(what, overwrite, sample, fast, tmp_path):
    for name in NAMES:
        mine = tmp_path / name.strip(".")
        (mine / name).mkdir(parents=True)
        (mine / name / "000000000000.parquet").write_text("mine")
        before = tree(mine)
        with pytest.raises(FlowerrayError, match="holds something else"):
            job(what, sample, fast, mine, overwrite=overwrite)
        assert tree(mine) == before


@pytest.mark.parametrize("what", ["extract", "train", "label"])
def test_what_a_user_put_into_an_output_outlives_it(what, sample, fast, tmp_path):
    out = tmp_path / "out"
    job(what, sample, fast, out)
    mine = [f"{name}/mine.txt" for name in NAMES if name != ".flowerray"]
    mine += ["mine.txt", "labels.csv", "attempts/000000000000.tried", "tmp/shard.0123456789ab"]
    for name in mine:
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_text("mine")
    job(what, sample, fast, out)
    job(what, sample, fast, out, overwrite=True)
    assert all((out / name).read_text() == "mine" for name in mine)
    assert not (out / ".flowerray").exists()
    if what == "label":
        with pytest.raises(FlowerrayError, match=r"labels\.csv is there and none of flowerray's"):
            job(what, sample, fast, out, format="csv")


def test_a_set_up_that_fails_leaves_nothing_and_takes_nothing(sample, fast, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(FlowerrayError, match="no photographs"):
        extract(ExtractSettings(images=tmp_path / "none", out=out, base="thumbnail"))
    assert not out.exists()
    out.mkdir()
    with pytest.raises(FlowerrayError, match="no photographs"):
        extract(ExtractSettings(images=tmp_path / "none", out=out, base="thumbnail"))
    assert out.is_dir() and not list(out.iterdir())


def test_a_set_up_that_was_killed_goes_on_beside_what_a_user_put_there(sample, fast, tmp_path):
    out = tmp_path / "out"
    for name, text in (
        ("manifest/000000000000.parquet", "half"),
        ("manifest/mine.txt", "mine"),
        ("mine.txt", "mine"),
    ):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text(text)
    leave_lease(out, "features")
    job("extract", sample, fast, out)
    assert verify(str(out)).whole and (out / "manifest" / "mine.txt").exists()
    with pytest.raises(FlowerrayError, match="holds features, not labels"):
        job("label", sample, fast, out)
    other = tmp_path / "other"
    leave_lease(other, "a classifier")
    with pytest.raises(FlowerrayError, match="holds a classifier in the making, not features"):
        job("extract", sample, fast, other)


def leave_lease(out, kind, **owner):
    """What a killed job leaves, or with an owner a running one."""
    (out / ".flowerray").mkdir(parents=True, exist_ok=True)
    (out / ".flowerray" / "lease.json").write_bytes(_Owner(kind=kind, **owner).written())


def test_an_export_leaves_what_is_none_of_it(sample, fast, tmp_path):
    labels, out = tmp_path / "labels", tmp_path / "sorted"
    job("label", sample, fast, labels)
    settings = {"labels": str(labels), "format": "folders", "out": str(out)}
    done = export(ExportSettings(**settings))
    one = next(path for path in sorted(out.rglob("*")) if path.is_symlink())
    one.unlink()
    one.write_text("mine, in its place")
    (one.parent / "mine.txt").write_text("mine")
    (out / "mine").mkdir()
    with pytest.raises(FlowerrayError, match="is there and of no export"):
        export(ExportSettings(**settings, copy=True, overwrite=True))
    assert one.read_text() == "mine, in its place"
    one.rename(tmp_path / "away")
    again = export(ExportSettings(**settings, copy=True, overwrite=True))
    assert again.photographs == done.photographs and not one.is_symlink()
    assert (one.parent / "mine.txt").exists() and (out / "mine").is_dir()
    (out / ".flowerray.list").unlink()
    with pytest.raises(FlowerrayError, match="an earlier version, which kept no list"):
        export(ExportSettings(**settings, overwrite=True))
    assert not (out / ".flowerray").exists() and one.exists()


@pytest.fixture(params=["local", "s3", "memory"])
def folder(request, tmp_path):
    if request.param == "s3":
        request.getfixturevalue("s3")
    roots = {"local": str(tmp_path), "s3": "s3://flowers", "memory": "memory://here"}
    return Folder.at(f"{roots[request.param]}/leased")


def test_a_second_writer_is_refused_by_host_and_pid(folder):
    with held(folder, "features") as mine:
        mine.write("run.json", b"1")
        with pytest.raises(FlowerrayError, match=rf"\(pid {os.getpid()}\) is writing to"):
            held(folder, "features").__enter__()
        mine.write("run.json", b"2")
    assert folder.names(".") == {"run.json"}
    with pytest.raises(KeyboardInterrupt), held(folder, "features") as mine:
        mine.write(".flowerray/checkpoint/1", b"")
        raise KeyboardInterrupt
    lease.check_ours(folder, "features", recorded=False)  # a mark stays with what is left
    with held(folder, "features") as mine:
        assert mine.exists(".flowerray/checkpoint")
    assert folder.names(".") == {"run.json"}
    folder.remove(".")


def elsewhere(**more):
    return {"token": "t", "host": "far", "pid": 7, "machine": "of another", **more}


def test_a_job_of_another_machine_that_died_is_followed(folder, monkeypatch, capsys):
    monkeypatch.setattr(lease, "STALE_SECONDS", 1.0)
    monkeypatch.setattr(lease, "LOOK_SECONDS", 0.1)
    folder.write(lease.LEASE, _Owner(kind="features", **elsewhere()).written())
    with held(folder, "features"):
        assert "far (pid 7)'s to write to: looking for up to 1 s" in capsys.readouterr().err
    assert folder.names(".") == set()


def test_a_job_of_another_machine_that_lives_is_not(folder, monkeypatch):
    monkeypatch.setattr(lease, "LOOK_SECONDS", 0.1)
    folder.write(lease.LEASE, _Owner(kind="features", **elsewhere()).written())
    real, reads = lease._content, []

    def beaten(of):
        reads.append(of)
        if len(reads) == 3:
            folder.write(lease.LEASE, _Owner(kind="features", **elsewhere(beat=1)).written())
        return real(of)

    monkeypatch.setattr(lease, "_content", beaten)
    with pytest.raises(FlowerrayError, match=r"far \(pid 7\) is writing to"):
        held(folder, "features").__enter__()
    folder.remove(".flowerray")


def test_who_was_taken_for_dead_writes_nothing_more(folder):
    with held(folder, "features") as mine:
        mine.write("run.json", b"before")
        folder.write(lease.LEASE, _Owner(kind="features", **elsewhere()).written())
        for change in (
            lambda: mine.write("run.json", b"after"),
            lambda: mine.remove("run.json"),
            lambda: mine.hint(".flowerray/mark", b""),
        ):
            with pytest.raises(FlowerrayError, match=r"taken for dead: far \(pid 7\) writes there"):
                change()
    assert folder.read("run.json") == b"before" and folder.exists(".flowerray")
    folder.remove(".")


def test_a_killed_jobs_lease_ends_at_once(tmp_path):
    script = (
        "import sys, time\nfrom flowerray.lease import held\nfrom flowerray.storage import Folder\n"
        "with held(Folder.at(sys.argv[1]), 'features'):\n    print(flush=True)\n    time.sleep(99)"
    )
    folder = Folder.at(tmp_path / "out")
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(folder)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "\n"
    with pytest.raises(FlowerrayError, match=rf"\(pid {process.pid}\) is writing"):
        held(folder, "features").__enter__()
    process.kill()
    while _stat(process.pid) != "Z":  # nobody has waited for it yet
        time.sleep(0.01)
    with held(folder, "features"):
        owner = json.loads(folder.read(lease.LEASE))
        assert owner["pid"] == os.getpid()
    process.wait()


def _stat(pid):
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0]


def test_a_lease_beats(folder, monkeypatch):
    monkeypatch.setattr(lease, "BEAT_SECONDS", 0.05)
    with held(folder, "features"):
        first, deadline = folder.read(lease.LEASE), time.monotonic() + 30
        while folder.read(lease.LEASE) == first:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert folder.names(".") == set()


@pytest.mark.parametrize("what", ["extract", "train", "label"])
def test_a_second_job_is_refused(what, sample, fast, tmp_path):
    out = tmp_path / "out"
    kinds = {"extract": "features", "train": "a classifier", "label": "labels"}
    with held(Folder.at(out), kinds[what]):
        before = tree(out)
        for overwrite in (False, True):
            with pytest.raises(FlowerrayError, match=rf"\(pid {os.getpid()}\) is writing to {out}"):
                job(what, sample, fast, out, overwrite=overwrite)
        assert set(tree(out)) == set(before)
    assert not out.exists()
