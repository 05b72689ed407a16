"""What lies in an output: nothing of the user's is touched, and one job at a time writes there."""

import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import suppress

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flowerray.commands.export import export
from flowerray.commands.extract import extract
from flowerray.commands.label import label
from flowerray.commands.train import train
from flowerray.commands.verify import verify
from flowerray.errors import FlowerrayError
from flowerray.outputs import comparison, lease
from flowerray.outputs.lease import _Owner, held
from flowerray.outputs.manifest import Manifest, rows_of, write_listing
from flowerray.outputs.record import read_output, writing
from flowerray.outputs.setup import open_output
from flowerray.settings import ExportSettings, ExtractSettings, LabelSettings, TrainSettings
from flowerray.sources.labelled import photographs_to_extract
from flowerray.sources.listing import FOUND
from flowerray.stores.folder import Folder

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
        "import sys, time\nfrom flowerray.outputs.lease import held\n"
        "from flowerray.stores.folder import Folder\n"
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


@pytest.fixture
def grown(sample, local_ray, tmp_path):
    """Class folders of one's own, and `features` of them: returns what extracts again."""
    images = shutil.copytree(sample.labelled, tmp_path / "images")

    def run(**options):
        given = {"images": images, "out": tmp_path / "features", "base": "thumbnail"}
        return extract(ExtractSettings(**given | {"shard_size": 4} | options))

    run()
    return run


def in_shards(out):
    """What a tool that knows nothing of flowerray reads."""
    import duckdb

    found = duckdb.sql(f"SELECT uri, label, image_id FROM '{out}/shards/*.parquet' ORDER BY uri")
    return found.fetchall()


def test_moved_and_vanished_photographs_are_refused_and_synced(grown, tmp_path):
    images, out = tmp_path / "images", tmp_path / "features"
    (images / "rose" / "rose-0001.jpg").rename(images / "tulip" / "a.jpg")
    (images / "rose" / "rose-0002.jpg").unlink()
    before = tree(out)
    with pytest.raises(FlowerrayError, match=r"^2 photographs of .*rose-0001\.jpg\): --sync"):
        grown(append=True)
    with pytest.raises(FlowerrayError, match="--sync also retires"):
        grown()
    assert tree(out) == before
    done = grown(sync=True)
    assert (done.photographs, done.computed) == (29, 1)
    there = {str(path): path.parent.name for path in images.rglob("*.jpg")}
    rows = in_shards(out)
    assert {uri: name for uri, name, _ in rows} == there and len(rows) == 29
    assert verify(str(out)).whole and grown(append=True).computed == 0
    manifest = read_output(str(out), "features").manifest
    assert (manifest.rows, manifest.end) == (29, 31)
    shutil.copy(images / "tulip" / "a.jpg", images / "tulip" / "b.jpg")
    assert grown(append=True).photographs == 30 and verify(str(out)).whole
    job = TrainSettings(features=out, out=tmp_path / "classifier", recipe="logistic")
    assert train(job).trained_on + 3 == 30


def test_another_label_in_a_table_is_a_move(grown, tmp_path):
    rose, tulip = (sorted((tmp_path / "images" / name).iterdir()) for name in ("rose", "tulip"))
    lines = [f"{p},{n}" for n, files in (("rose", rose), ("tulip", tulip)) for p in files]
    table, out = tmp_path / "table.csv", tmp_path / "table"

    def run(**options):
        table.write_text("uri,label\n" + "\n".join(lines) + "\n")
        return grown(images=table, out=out, **options)

    run()
    lines[0] = f"{rose[0]},tulip"
    with pytest.raises(FlowerrayError, match=r"1 photographs of .* another label"):
        run(append=True)
    assert run(sync=True).computed == 1
    assert [name for uri, name, _ in in_shards(out) if uri == str(rose[0])] == ["tulip"]
    lines[1:] = [f"{p},{n}" for p, n in ((tulip[0], "tulip"), (rose[1], "rose"), (rose[2], "rose"))]
    lines.append(f"{tulip[1]},tulip")
    done = run(append=True)  # another list of photographs that are all there
    assert done.computed == 0 and done.photographs == 20


def test_photographs_of_another_folder_are_appended(grown, tmp_path, sample):
    shutil.copytree(sample.labelled, tmp_path / "more")
    assert grown(images=tmp_path / "more", append=True).photographs == 60
    shutil.rmtree(tmp_path / "more" / "rose")
    with pytest.raises(FlowerrayError, match="10 photographs of"):
        grown(append=True)
    shutil.rmtree(tmp_path / "more")
    assert grown(sync=True).photographs == 30 and verify(str(tmp_path / "features")).whole
    shutil.move(tmp_path / "images", tmp_path / "renamed")
    with pytest.raises(FlowerrayError, match=r"all 30 photographs .* is a disk not mounted"):
        grown(images=tmp_path / "renamed", sync=True)


def test_a_sync_that_is_killed_anywhere_is_gone_on_with(grown, tmp_path, monkeypatch):
    images, out = tmp_path / "images", tmp_path / "features"
    for i in range(1, 5):  # a whole shard among them
        (images / "rose" / f"rose-000{i}.jpg").unlink()
    (images / "rose" / "rose-0010.jpg").rename(images / "tulip" / "a.jpg")
    saved = shutil.copytree(out, tmp_path / "saved")
    wanted = {str(path): path.parent.name for path in images.rglob("*.jpg")}
    create, seen = Folder.create, []
    for stop in range(12):
        shutil.rmtree(out)
        shutil.copytree(saved, out)
        seen.clear()

        def killed(self, name, stop=stop):
            if len(seen) == stop:
                raise KeyboardInterrupt
            seen.append(name)
            return create(self, name)

        with monkeypatch.context() as patch, suppress(KeyboardInterrupt):
            patch.setattr(Folder, "create", killed)
            open_alone(images, out)
            break
        if json.loads((out / "run.json").read_bytes()).get("retiring"):
            with pytest.raises(FlowerrayError, match="--sync` again"):
                verify(str(out))
        with suppress(FlowerrayError):
            grown(append=stop % 2 == 0)  # any later command finishes what was begun, or says how
        grown(sync=True)
        rows = in_shards(out)
        assert {uri: name for uri, name, _ in rows} == wanted and len(rows) == len(wanted)
        assert verify(str(out)).whole
    assert stop > 5 and seen[-1] == "run.json"


def open_alone(images, out):
    """The set-up of a --sync, without the actors."""
    settings = ExtractSettings(images=images, out=out, base="thumbnail", shard_size=4, sync=True)
    config = json.loads((out / "run.json").read_bytes())["config"]
    found = photographs_to_extract(settings)
    with writing(settings, "features") as folder:
        open_output(folder, settings, "features", config, found)


def test_a_sync_of_labels_renews_the_queue_for_review(sample, fast, tmp_path):
    pile = shutil.copytree(sample.pile, tmp_path / "pile")
    options = {"min_precision": 1.0, "format": "csv", "shard_size": 4}
    given = {"images": pile, "classifier": fast / "classifier", "out": tmp_path / "labels"}
    label(LabelSettings(**given, **options))
    gone = pq.read_table(tmp_path / "labels" / "review.parquet")["uri"][0].as_py()
    os.unlink(gone)
    done = label(LabelSettings(**given, **options, sync=True))
    assert (done.photographs, done.computed) == (33, 0)
    assert gone not in (tmp_path / "labels" / "labels.csv").read_text()
    review = pq.read_table(tmp_path / "labels" / "review.parquet")
    assert gone not in review["uri"].to_pylist()


def test_appending_takes_the_memory_of_no_photograph(tmp_path, monkeypatch):
    monkeypatch.setattr(f"{Manifest.__module__}.ROWS_A_GROUP", 8)
    for module in ("manifest", "comparison"):
        monkeypatch.setattr(f"flowerray.outputs.{module}.ROWS_A_PART", 32)
    folder = Folder.at(tmp_path)

    def listed(directory, uris, first_row=0):
        batch = pa.record_batch(
            [pa.array(uris), *(pa.nulls(len(uris), f.type) for f in list(FOUND)[1:])],
            FOUND,
        )
        return write_listing([batch], folder, directory, 5, first_row)

    manifest = Manifest(
        (listed("manifest", [f"/k/{i}" for i in range(70)]), listed("manifest", ["/k/x"], 70))
    )
    listed("new", [f"/k/{i}" for i in range(69, 200)] + ["/k/x", "/k/y", "/k/y"])
    with comparison.compared(folder, manifest, "new", by_split=True) as found:
        uris = [u for batch in found.new() for u in batch["uri"].to_pylist()]
        # In the listing's order; a list that names one twice has it twice.
        assert uris == [*(f"/k/{i}" for i in range(70, 200)), "/k/y", "/k/y"]
        gone, example = found.retired()
    assert gone.tolist() == list(range(69)) and example == "/k/0"
    comparison.drop_rows(folder, manifest, np.array([0, *range(8, 16), 33, 70]))
    comparison.drop_rows(folder, manifest, np.array([1]))
    now = comparison.recounted(folder, manifest)
    assert [one.retired for one in now.listings] == [11, 1]
    left = [i for i in range(2, 70) if i not in {*range(8, 16), 33}]
    assert now.fingerprint == listed("left", [f"/k/{i}" for i in left]).fingerprint
    tables = [rows_of(folder, now, shard) for shard in now.shards()]
    assert pa.concat_tables(tables)["image_id"].to_pylist() == left
