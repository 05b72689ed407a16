"""Where processes import from: never from the caller's directory. And how often they may die."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY

pytestmark = pytest.mark.slow

LESSONS = ("numpy", "random", "queue", "PIL", "keras", "tensorflow", "pyarrow", "tempfile")


@pytest.fixture
def lessons(tmp_path):
    """A directory as beginners have it: scripts called as libraries are, and a folder openvino."""
    here = tmp_path / "lessons"
    (here / "openvino").mkdir(parents=True)
    for file in (*(f"{name}.py" for name in LESSONS), "openvino/__init__.py"):
        (here / file).write_text("raise SystemExit('my first lesson')\n")
    return here


BIN = Path(sys.executable).parent
CALLED = {
    "the command": (str(BIN / "flowerray"), "extract"),
    "the module": (sys.executable, "-m", "flowerray.cli", "extract"),
    "the package": (sys.executable, "-m", "flowerray", "extract"),
    "a job by its path": (sys.executable, str(REPOSITORY / "jobs" / "extract_features.py")),
}


@pytest.mark.parametrize("called", CALLED.values(), ids=CALLED)
def test_scripts_called_like_libraries_beside_the_users_work_do_not_matter(
    called, lessons, sample, tmp_path
):
    done = subprocess.run(
        [*called, sample.labelled, "--base", "thumbnail", "--out", tmp_path / "features"],
        cwd=lessons,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0 and "lesson" not in done.stderr, done.stderr


def test_a_users_own_script_keeps_its_directory_and_workers_do_not_get_it(
    lessons, sample, tmp_path
):
    for name in LESSONS:
        if name not in ("keras", "tensorflow"):  # what the driver itself needs, it must have
            (lessons / f"{name}.py").unlink()
    (lessons / "mine.py").write_text(
        "import os, sys, flowerray\n"
        "here, path = os.getcwd(), list(sys.path)\n"
        f"flowerray.extract({str(sample.labelled)!r}, out='f', base='thumbnail')\n"
        "flowerray.train('f', out='c')\n"
        "assert os.getcwd() == here and set(path) <= set(sys.path)\n"
    )
    done = subprocess.run(
        [sys.executable, "mine.py"], cwd=lessons, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0 and "lesson" not in done.stderr, done.stderr
    assert (lessons / "c").is_dir()


def test_a_process_that_reads_alone_imports_nothing_from_where_it_starts(lessons, sample):
    """Python's spawn starts a child that looks in the directory it is in first."""
    code = (
        "import os, sys; sys.path.remove('')\n"
        "from flowerray import stores\n"
        "from flowerray.bases.spec import BaseSpec\n"
        "from flowerray.pipeline import connection, tasks\n"
        "from flowerray.sources import isolated, photographs\n"
        "from ray.runtime_context import RuntimeContext\n"
        "def main():\n"
        "    import ray\n"
        "    with connection.connection(None):\n"
        "        print(ray.get(ray.remote(read).remote()))\n"
        "def read():\n"
        "    tasks.set_up_worker(stores.Access())\n"
        f"    os.chdir({str(lessons)!r})\n"
        "    spec = BaseSpec('thumbnail', None, 32, 'none', 'nearest', 'float32', 'keras',\n"
        "                          'random', '')\n"
        f"    uri = {str(next(sample.pile.glob('*.jpg')))!r}\n"
        "    return isolated.IsolatedReader()(uri, None, spec, photographs.Limits())\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=lessons, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "Rejected" not in done.stdout and "lesson" not in done.stderr, done.stdout


def test_a_directory_that_was_deleted_under_the_caller_does_not_matter(
    on_local_ray, sample, tmp_path
):
    command = f"mkdir gone && cd gone && rmdir ../gone && exec {BIN / 'flowerray'} "
    command += f"extract {sample.labelled} --base thumbnail --out {tmp_path / 'features'}"
    done = subprocess.run(
        ["sh", "-c", command],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, **on_local_ray},
    )
    assert done.returncode == 0 and "30 photographs" in done.stdout, done.stderr
