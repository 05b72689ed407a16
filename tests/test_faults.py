"""Killed, damaged, grown and poisoned: run the same command again and every row is there once."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
from chaos import actors_of
from conftest import REPOSITORY
from PIL import Image

from flowerray.commands.baseline import baseline
from flowerray.commands.check import check
from flowerray.commands.evaluate import evaluate
from flowerray.commands.extract import extract
from flowerray.commands.label import label
from flowerray.commands.run import run
from flowerray.commands.train import train
from flowerray.commands.verify import verify
from flowerray.errors import GO_ON, FlowerrayError
from flowerray.heads.classifier import evidence, load
from flowerray.outputs.lease import _Owner
from flowerray.outputs.record import read_output
from flowerray.outputs.review import ReviewQueue
from flowerray.outputs.setup import _delete
from flowerray.pipeline.actor import ShardActor
from flowerray.pipeline.attempts import Attempts
from flowerray.pipeline.connection import connection
from flowerray.settings import (
    BaselineSettings,
    CheckSettings,
    ExtractSettings,
    LabelSettings,
    RunSettings,
    TrainSettings,
)
from flowerray.stores.folder import Folder


@pytest.fixture
def pile(sample, tmp_path):
    shutil.copytree(sample.pile, tmp_path / "pile")
    return tmp_path / "pile"


@pytest.fixture
def labelled(fast, pile, tmp_path):
    """Label the pile again, with other options; returns the summary."""

    def run(**options):
        given = {
            "images": str(pile),
            "classifier": str(fast / "classifier"),
            "out": str(tmp_path / "labels"),
            "shard_size": 4,
        }
        return label(LabelSettings(**given | options))

    return run


def rows_of(out):
    return pyarrow.dataset.dataset(out / "shards").to_table().sort_by("image_id").to_pylist()


def test_only_missing_shards_are_done_again(labelled, tmp_path):
    out = tmp_path / "labels"
    assert labelled().computed == 34
    whole = rows_of(out)
    for name in ("000000000004.parquet", "000000000032.parquet"):
        (out / "shards" / name).unlink()
    verdict = verify(str(out))
    assert (verdict.present, verdict.missing, verdict.whole) == (28, 6, False)
    with pytest.raises(FlowerrayError, match=r"lacks 2 of its 9 shards: run .*`flowerray label`"):
        evaluate(str(out), "folders")
    assert labelled().computed == 6
    assert rows_of(out) == whole and verify(str(out)).whole
    from ray.data import DataContext

    assert DataContext.get_current().target_max_block_size != 1  # the process' own again
    assert {entry.name for entry in out.iterdir()} == {
        *("run.json", "manifest", "shards", "evidence.parquet")
    }


def test_append_labels_the_new_photographs_alone(labelled, pile, tmp_path):
    out = tmp_path / "labels"
    labelled()
    before = rows_of(out)
    for name in ("aaa.jpg", "zzz.jpg"):
        shutil.copy(pile / "photo-0001.jpg", pile / name)
    with pytest.raises(FlowerrayError, match="--append adds the new ones"):
        labelled()
    assert labelled(append=True).computed == 2
    rows = rows_of(out)
    assert rows[:34] == before
    assert [os.path.basename(row["uri"]) for row in rows[34:]] == ["aaa.jpg", "zzz.jpg"]
    assert [row["image_id"] for row in rows] == list(range(36))
    assert labelled().computed == labelled(append=True).computed == 0
    assert verify(str(out)).whole
    (out / "shards" / "000000000034.parquet").unlink()
    assert labelled().computed == 2 and rows_of(out) == rows


def test_the_queue_for_review_is_of_all_rows_whatever_was_killed(labelled, pile, monkeypatch):
    out = pile.parent / "labels"
    before = len(pq.read_table(out / "review.parquet")) if labelled(min_precision=1.0) else 0
    shutil.copy(pile / "photo-0001.jpg", pile / "zzz.jpg")

    def killed(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(ReviewQueue, "write", killed)
        labelled(min_precision=1.0, append=True)
    assert labelled(min_precision=1.0).computed == 0
    assert len(pq.read_table(out / "review.parquet")) == before + 1


def test_an_output_of_an_earlier_version_goes_on(labelled, pile, monkeypatch):
    monkeypatch.setattr("flowerray.outputs.setup.__version__", "0.0.1")
    labelled()
    monkeypatch.undo()
    shutil.copy(pile / "photo-0001.jpg", pile / "zzz.jpg")
    assert labelled(append=True).computed == 1
    assert verify(str(pile.parent / "labels")).whole


def test_retry_rejected_tries_those_alone(labelled, pile, tmp_path):
    out = tmp_path / "labels"
    assert sum(labelled().rejected.values()) == 4
    before = rows_of(out)
    broken = next(row["uri"] for row in before if row["error"] == "empty")
    shutil.copy(pile / "photo-0001.jpg", broken)
    again = labelled(retry_rejected=True)
    assert again.computed == 4 and sum(again.rejected.values()) == 3
    after = rows_of(out)
    assert [a for a, b in zip(after, before, strict=True) if a != b] == [
        row for row in after if row["uri"] == broken
    ]
    assert verify(str(out)).whole
    # An actor that takes over from one that died may find a shard mended already.
    actor, output = ShardActor.__new__(ShardActor), read_output(str(out), "labels")
    actor.attempts = Attempts(output.folder)
    actor.output = replace(output, retry=frozenset(s.name for s in output.manifest.shards()))
    for shard in output.manifest.shards():
        errors = [row for row in after[shard.first_row :][: shard.rows] if row["error"]]
        left = actor._left_of(shard, set())
        assert (len(left.rows) if left else 0) == len(errors)


def test_what_is_raised_in_an_actor_is_told_on_one_line(local_ray):
    import ray

    def broken(row):
        raise ValueError("no such\n\nlayer")

    ray.data.DataContext.get_current().raise_original_map_exception = True  # as jobs have it
    with (
        pytest.raises(FlowerrayError, match="Ray failed: ValueError: no such layer; ") as told,
        connection(None),
    ):
        ray.data.from_items([1]).map(broken).take()
    # It would be raised again: no word of going on, but where to read more.
    assert "again" not in str(told.value)
    assert re.search(r"logs/worker-\*-\d+\.err .* on [\d.]+$", str(told.value))


def test_going_on_is_promised_where_ray_lost_a_process_and_not_where_it_would_be_lost_again(
    local_ray,
):
    import ray

    class Actor:
        def __init__(self, fault="none"):
            if fault == "engine":
                raise RuntimeError("no engine")

        def end(self):
            os._exit(1)

    def full():
        raise OSError(28, "No space left on device")

    def failing(call):
        with pytest.raises(FlowerrayError, match="Ray failed: ") as told, connection(None):
            ray.get(call())
        return str(told.value)

    actor = ray.remote(num_cpus=0)(Actor)
    lost = failing(lambda: actor.remote().end.remote())
    assert lost.endswith("what is committed stays, run the same command again to go on")
    assert "again" not in failing(lambda: actor.remote("engine").end.remote())
    assert failing(ray.remote(full).remote).endswith("once that is mended, " + GO_ON)


def test_overwrite_starts_anew(labelled, tmp_path):
    labelled()
    with pytest.raises(FlowerrayError, match=r"top_k.*--overwrite"):
        labelled(top_k=1)
    with pytest.raises(FlowerrayError, match="no photographs at pyle"):
        labelled(top_k=1, overwrite=True, images="pyle")
    assert verify(str(tmp_path / "labels")).whole  # it stays while nothing can take its place
    assert labelled(top_k=1, overwrite=True).computed == 34
    assert len(next(r for r in rows_of(tmp_path / "labels") if r["top_k"])["top_k"]) == 1


def test_what_an_output_has_and_the_command_lacks_is_named(fast, sample, tmp_path):
    features = shutil.copytree(fast / "features", tmp_path / "f")
    run = json.loads((features / "run.json").read_bytes())
    run["config"]["augment"] = "mirror"
    (features / "run.json").write_text(json.dumps(run))
    settings = ExtractSettings(images=sample.labelled, out=features, base="thumbnail")
    with pytest.raises(FlowerrayError, match=r"made with other settings \(augment\)"):
        extract(settings)
    run["config"]["base_spec"]["of_a_later_version"] = True
    (features / "run.json").write_text(json.dumps(run))
    with pytest.raises(FlowerrayError, match=r"run\.json is no record .* or a later version's"):
        extract(settings)


def test_an_overwriting_that_is_killed_goes_on(labelled, tmp_path, monkeypatch):
    labelled()
    out, unlink, steps, stops = tmp_path / "labels", Path.unlink, [], []

    def killed(path, **options):
        steps.append(os.path.relpath(path, out))
        if len(steps) == stops[-1]:
            raise KeyboardInterrupt
        unlink(path, **options)

    for stop in (1, 5, 10, 13, 14):
        steps.clear()
        stops.append(stop)
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(Path, "unlink", killed)
            _delete(Folder.at(out), read_output(str(out), "labels").run)
        (out / ".flowerray").mkdir()  # as a killed job leaves it
        (out / ".flowerray" / "lease.json").write_bytes(_Owner(kind="labels").written())
        assert labelled(top_k=1, overwrite=True).computed == 34
        assert verify(str(out)).whole and not (out / ".flowerray").exists()
    assert steps[0].startswith("shards/") and steps[12] == "run.json"
    assert set(steps[9:12]) == {"evidence.parquet", "audit.parquet", "thresholds.json"}


def test_a_link_to_the_output_stays(labelled, tmp_path):
    (tmp_path / "large disk").mkdir()
    (tmp_path / "labels").symlink_to(tmp_path / "large disk")
    labelled()
    assert labelled(top_k=1, overwrite=True).computed == 34
    assert (tmp_path / "large disk" / "run.json").exists() and (tmp_path / "labels").is_symlink()


def test_a_file_of_all_labels_is_never_older_than_they(labelled, tmp_path):
    labelled(format="csv")
    next((tmp_path / "labels" / "shards").iterdir()).unlink()
    labelled()
    assert not (tmp_path / "labels" / "labels.csv").exists()


def test_verify_names_what_is_wrong(labelled, tmp_path, command):
    out = tmp_path / "labels"
    labelled()
    shards = out / "shards"
    cut = shards / "000000000004.parquet"
    cut.write_bytes(cut.read_bytes()[:-100])
    flipped = shards / "000000000008.parquet"
    content = bytearray(flipped.read_bytes())
    content[200] ^= 0xFF
    flipped.write_bytes(content)
    shutil.copy(shards / "000000000000.parquet", shards / "000000000001.parquet")
    table = pq.read_table(shards / "000000000012.parquet")
    twice = pa.concat_tables([table, table.slice(0, 1)])
    pq.write_table(twice, shards / "000000000012.parquet")
    other = table.replace_schema_metadata({"flowerray": "{}"})
    pq.write_table(other, shards / "000000000016.parquet")
    done = command("verify", out, "--json")
    assert done.returncode == 1
    verdict = json.loads(done.stdout)
    assert verdict["doubled"] == 1 and verdict["missing"] == 12
    assert verdict["damaged"] == ["shards/000000000004.parquet", "shards/000000000008.parquet"]
    assert verdict["foreign"] == ["shards/000000000001.parquet", "shards/000000000016.parquet"]
    with pytest.raises(FlowerrayError, match=r"000000000004.parquet can't be read .*verify"):
        labelled()


@pytest.fixture
def to_finetune(sample, local_ray, tmp_path):
    made = {"layer": "block5_conv2", "weights": "random", "precision": "float32"}
    extract(ExtractSettings(images=str(sample.labelled), out=str(tmp_path / "features"), **made))
    return str(tmp_path / "features")


def test_a_killed_finetune_goes_on_with_each_folds_last_epoch(
    to_finetune, command, on_local_ray, tmp_path
):
    options = ["train", to_finetune, "--recipe", "finetune", "--weights", "random", "--out"]
    goes_on_as_undisturbed(
        command, options, "epoch 3 of 4, fold 2 of 2: ", "after epoch 2", tmp_path, on_local_ray
    )


def test_a_killed_trainer_goes_on_at_its_last_epoch(fast, command, on_local_ray, tmp_path):
    options = ["train", str(fast / "whole"), "--recipe", "article", "--epochs", "30", "--out"]
    goes_on_as_undisturbed(
        command, options, "epoch 3 of 30: ", "after epoch", tmp_path, on_local_ray
    )


def goes_on_as_undisturbed(command, options, killed_at, said, tmp_path, on_local_ray):
    """`flowerray train` that is killed once it has said `killed_at` gives what another gives."""
    settled = tmp_path / "settled"
    assert command(*options, settled, **on_local_ray).returncode == 0
    out = tmp_path / "killed"
    process = subprocess.Popen(
        [sys.executable, "-m", "flowerray.cli", *options, str(out)],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env={**os.environ, **on_local_ray},
        process_group=0,
    )
    for line in process.stderr:
        if killed_at in line:
            break
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    with pytest.raises(FlowerrayError, match="no classifier"):
        load(str(out))
    done = command(*options, out, **on_local_ray)
    assert done.returncode == 0, done.stderr
    assert f"going on {said}" in done.stderr
    assert (out / "history.csv").read_text() == (settled / "history.csv").read_text()
    assert evidence(str(out)).equals(evidence(str(settled)))
    assert not (out / ".flowerray").exists()


@pytest.fixture(scope="module")
def slow_pile(tmp_path_factory):
    """Enough work that a signal arrives in the midst of it."""
    directory = tmp_path_factory.mktemp("slow")
    chance = np.random.default_rng(0)
    for i in range(30):
        noise = Image.fromarray(chance.integers(0, 256, (40, 40, 3), np.uint8))
        drawn = directory / f"{i:03d}.png"
        noise.resize((1600, 1200)).save(drawn, compress_level=0)
        for copy in range(1, 10):
            os.link(drawn, directory / f"{i + 30 * copy:03d}.png")
    return directory


def start(*arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "flowerray.cli", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_shards(out, process, count=1):
    while process.poll() is None and len(list((out / "shards").glob("*.parquet"))) < count:
        time.sleep(0.05)


def test_control_c_ends_in_order_and_the_job_goes_on(slow_pile, tmp_path, command):
    out = tmp_path / "features"
    arguments = ("extract", slow_pile, "--out", out, "--base", "thumbnail", "--json")
    process = start(*arguments)
    wait_for_shards(out, process)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.splitlines()[-1] == "flowerray: interrupted; run the same command again to go on"
    assert "Traceback" not in errors
    process = start(*arguments)
    wait_for_shards(out, process, count=3)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    committed = verify(str(out)).present
    done = command(*arguments)
    assert done.returncode == 0, done.stderr
    # Actors may commit a shard more after a driver that ends at once.
    assert 0 < json.loads(done.stdout)["computed"] <= 300 - committed < 300
    assert verify(str(out)).whole


def computing(out):
    """The shards that an actor computes; the mark of one that is committed goes a little later."""
    marked = {mark.stem for mark in (out / ".flowerray" / "attempts").glob("*.computing")}
    return marked - {shard.stem for shard in (out / "shards").glob("*.parquet")}


def test_a_kill_loses_no_more_than_the_shard_being_computed(slow_pile, tmp_path):
    out, shard = tmp_path / "features", 40
    arguments = ("extract", slow_pile, "--out", out, "--base", "thumbnail", "--json")
    process = start(*arguments, "--shard-size", shard, "--actors", 1)
    wait_for_shards(out, process)
    while process.poll() is None and not computing(out):
        time.sleep(0.01)
    (actor,) = actors_of(process.pid)
    os.kill(actor, signal.SIGKILL)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    summary = json.loads(output)
    assert (summary["computed"], summary["redone"]) == (300, shard)
    assert verify(str(out)).whole


POISON = """
import os
from PIL import BmpImagePlugin, Image, ImageFile

class Poison(ImageFile.ImageFile):
    format = "BMP"
    def _open(self):
        os.kill(os.getpid(), 9)

Image.register_open("BMP", Poison, lambda head: head.startswith(b"BM"))
"""


def test_a_photograph_that_kills_its_process_is_rejected_alone(command, pile, fast, tmp_path):
    """The decoder that dies is a real one: a Pillow plugin that every process of the job loads."""
    (tmp_path / "plugin").mkdir()
    (tmp_path / "plugin" / "sitecustomize.py").write_text(POISON)
    (pile / "photo-0010b.jpg").write_bytes(b"BM" + bytes(100))
    out = tmp_path / "labels"
    done = command(
        *("label", pile, "--classifier", fast / "classifier", "--out", out),
        *("--shard-size", 8, "--json"),
        PYTHONPATH=str(tmp_path / "plugin"),
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["photographs"] == 35 and summary["rejected"]["crashed"] == 1
    assert [os.path.basename(r["uri"]) for r in rows_of(out) if r["error"] == "crashed"] == [
        "photo-0010b.jpg"
    ]
    assert verify(str(out)).whole


@pytest.fixture
def small_disk(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small file system needs root")
    yield disk
    when_free("umount", str(disk))


def when_free(*command):
    """Run what the system refuses as long as an actor that ends has a file open there."""
    deadline = time.monotonic() + 60
    while subprocess.run(command, capture_output=True).returncode:
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_a_full_disk_is_one_line_and_nothing_is_lost(small_disk, sample, command, on_local_ray):
    out = small_disk / "features"
    arguments = ("extract", sample.labelled, "--out", out, "--base", "thumbnail", "--shard-size", 2)
    filler = small_disk / "filler"
    filler.write_bytes(bytes(340_000))
    done = command(*arguments, **on_local_ray)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("flowerray: can't write") and "No space left on device" in last
    # Full to the last byte, the first thing that can't be written may be a mark.
    with pytest.raises(OSError), open(small_disk / "rest", "wb", buffering=0) as rest:
        while rest.write(bytes(4096)):
            pass
    (out / "marks").mkdir(exist_ok=True)
    with pytest.raises(FlowerrayError, match=r"can't write .*/marks/mark: No space left"):
        Folder.at(str(out)).hint("marks/mark", b"1")
    shutil.rmtree(out / "marks")
    (small_disk / "rest").unlink()
    filler.unlink()
    assert command(*arguments, **on_local_ray).returncode == 0
    assert verify(str(out)).whole
    when_free("mount", "-o", "remount,ro", str(small_disk))
    other = ("extract", sample.labelled, "--out", small_disk / "other", "--base", "thumbnail")
    done = command(*other, **on_local_ray)
    assert done.returncode == 1 and "Read-only file system" in done.stderr.splitlines()[-1]


def test_chaos_of_a_seed(fast):
    """`make chaos` is the long form. Seed 5 kills an actor, a node and a driver."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    options = ["--seeds", "1", "--first-seed", "5", "--pictures", "700"]
    options += ["--classifier", str(fast / "classifier")]
    done = subprocess.run(
        [sys.executable, REPOSITORY / "tests" / "chaos.py", *options],
        capture_output=True,
        text=True,
        env=environment,
        timeout=500,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 of 1 seeds whole" in done.stdout


def test_a_job_in_which_nothing_could_be_used_ends_with_1_and_the_reason(
    command, on_local_ray, fast, tmp_path
):
    (tmp_path / "list.txt").write_text("".join(f"/nowhere/{i}.jpg\n" for i in range(5)))
    (tmp_path / "texts").mkdir()
    for i in range(3):
        (tmp_path / "texts" / f"{i}.jpg").write_text("no picture")
    jobs = {
        "extract": ("--base", "thumbnail"),
        "label": ("--classifier", fast / "classifier", "--format", "csv"),
    }
    for job, options in jobs.items():
        for source, told in (
            ("list.txt", "5 photographs could be used: 5 missing; see"),
            ("texts", "3 photographs could be used: 3 not_an_image; give"),
        ):
            out = tmp_path / f"{job}-{source}"
            for _ in range(2):  # and so does the same command on the finished output
                done = command(job, tmp_path / source, "--out", out, *options, **on_local_ray)
                assert done.returncode == 1 and done.stdout == "", done.stderr
                assert told in done.stderr.splitlines()[-1]
            assert verify(str(out)).whole


def test_a_check_in_which_nothing_could_be_used_ends_with_1_too(command, tmp_path):
    (tmp_path / "texts" / "rose").mkdir(parents=True)
    for i in range(3):
        (tmp_path / "texts" / "rose" / f"{i}.jpg").write_text("no picture")
    out = tmp_path / "findings.csv"
    done = command("check", tmp_path / "texts", "--out", out)
    assert done.returncode == 1 and out.exists(), done.stderr
    assert "3 photographs could be used: 3 not_an_image; give" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("kind", ["features", "classifier", "labels"])
def test_results_given_as_photographs_are_called_what_they_are(kind, labelled, fast, tmp_path):
    if kind == "labels":
        labelled()
    given = str(tmp_path / "labels" if kind == "labels" else fast / kind)
    new = str(tmp_path / "new")
    jobs = [
        lambda: extract(ExtractSettings(images=given, out=new, base="thumbnail")),
        lambda: labelled(images=given, out=new),
        lambda: baseline(BaselineSettings(images=given, out=new)),
        lambda: run(RunSettings(images=given, pile=given, out=new)),
    ]
    if kind == "features":  # which can be labelled
        del jobs[1]
    if kind == "classifier":
        jobs.append(lambda: check(CheckSettings(source=given)))
    for job in jobs:
        with pytest.raises(FlowerrayError, match=f"holds (a )?{kind}, no photographs"):
            job()
    assert not (tmp_path / "new").exists()


def test_what_is_no_classifier_and_no_features_is_called_what_it_is(labelled, fast, tmp_path):
    with pytest.raises(FlowerrayError, match="holds features, no classifier"):
        labelled(classifier=str(fast / "features"))
    with pytest.raises(FlowerrayError, match="holds a classifier, no features"):
        train(TrainSettings(features=fast / "classifier", out=tmp_path / "new"))
    with pytest.raises(FlowerrayError, match=r"no features in .*: give the --out"):
        train(TrainSettings(features=tmp_path, out=tmp_path / "new"))
    assert not (tmp_path / "new").exists() and not (tmp_path / "labels").exists()
