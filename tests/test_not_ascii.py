"""Every name of every directory beyond ASCII, and terminals, locales and readers of every kind."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from ray.util.metrics import Counter

from flowerray.pipeline import metrics

pytestmark = pytest.mark.slow

NAME = "données 花 ñ😀"


@pytest.fixture(scope="module")
def home(sample, tmp_path_factory):
    """A home directory below nothing but such names, with the sample set in it."""
    home = tmp_path_factory.mktemp("away") / NAME / NAME
    shutil.copytree(os.path.dirname(sample.labelled), home / NAME)
    (home / "tmpü").mkdir()
    return home


def run(home, *arguments, **environment):
    here = {
        "HOME": str(home),
        "TMPDIR": str(home / "tmpü"),
        "XDG_CACHE_HOME": str(home / "caché"),
        **environment,
    }
    return subprocess.run(
        [sys.executable, "-m", "flowerray.cli", *map(str, arguments)],
        cwd=home,
        env={**os.environ, **here},
        capture_output=True,
        timeout=300,
    )


def test_the_jobs_run_where_no_name_is_ascii(home, sample):
    """With a Ray of their own; each in a locale and for a terminal that knows only ASCII."""
    known = ("labelled", "pile", "truth")
    labelled, pile, truth = (f"{NAME}/{os.path.basename(getattr(sample, name))}" for name in known)
    for arguments in (
        ("extract", labelled, "--out", "résultats/特征", "--base", "thumbnail"),
        ("train", "résultats/特征", "--out", "résultats/分类"),
        ("label", pile, "--classifier", "résultats/分类", "--out", "résultats/étiquettes"),
        ("evaluate", "résultats/étiquettes", "--truth", truth),
        ("report", "résultats/étiquettes", "--out", "résultats/é.html"),
        ("export", "résultats/étiquettes", "--format", "csv", "--out", "résultats/é.csv"),
        ("verify", "résultats/étiquettes"),
    ):
        done = run(
            home,
            *(*arguments, "--json"),
            PYTHONIOENCODING="ascii",
            PYTHONUTF8="0",
            PYTHONCOERCECLOCALE="0",
            LC_ALL="POSIX",
        )
        assert done.returncode == 0, done.stderr.decode()
        assert b"Traceback" not in done.stderr and b"no metrics" not in done.stderr
        assert json.loads(done.stdout.decode("ascii")) is not None
    assert (home / "résultats/é.csv").is_file()


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "C"},
        {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"PYTHONIOENCODING": "cp1252"},
    ],
)
def test_an_error_that_names_what_a_terminal_can_not_show_is_one_line(home, environment):
    for name in (NAME, b"no\xff utf-8", "花"):
        name = os.fsdecode(name) if isinstance(name, bytes) else name
        done = run(home, "verify", home / name / "none", **environment)
        told = done.stderr.removeprefix(b"verify: starting\n")  # on a busy machine
        assert done.returncode == 1 and told.count(b"\n") == 1, done.stderr
        assert told.startswith(b"flowerray: ") and not done.stdout


def test_a_reader_that_goes_early_or_was_never_there_ends_no_command(home):
    for shell in (
        "set -o pipefail; {} bases --json | head -n 1 >/dev/null; exit $?",
        "set -o pipefail; {} --help | true; exit $?",
        "{} bases >&-",
        "{} bases 2>&-",
        "{} bases >&- 2>&- <&-",
        "{} bases --json 2> >(true) | cat > /dev/null",
    ):
        command = shell.format(f"'{sys.executable}' -m flowerray.cli")
        done = subprocess.run(["bash", "-c", command], capture_output=True, timeout=60)
        assert (done.returncode, done.stderr) == (0, b""), (shell, done.stderr)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_a_result_that_a_full_disk_does_not_take_is_told():
    command = f"'{sys.executable}' -m flowerray.cli bases > /dev/full"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "can't be printed: No space left" in done.stderr
    assert len(done.stderr.removeprefix("bases: starting\n").splitlines()) == 1


def test_no_tag_ends_a_job(local_ray, capsys, monkeypatch):
    for output in ("/home/é/结果", "/a\udcff", "s3://bucket/ü", "/a b%", "x" * 5000, "\n\0"):
        run = metrics.RunMetrics("extract", output, 10, 0)
        run.add(5, ["missing", "crashed"])
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(Counter, "inc", lambda *_: 1 / 0)
    for _ in range(2):
        run.add(1, ["missing"])
    assert capsys.readouterr().err.count("no metrics") == 1
    metrics.ActorMetrics("extract").committed(1, [])
