"""The wheel by itself: what is in it, and the README's commands from it."""

import os
import re
import shutil
import subprocess
import tarfile
import zipfile

import pytest
from conftest import REPOSITORY

from flowerray.commands.verify import verify

pytestmark = pytest.mark.slow


def commands(wheel):
    """Those of the README, from the installation to the report, with `wheel` for the clone."""
    readme = (REPOSITORY / "README.md").read_text()
    lines = re.findall(r"^    ((?:pip|flowerray) .*)$", readme, re.M)
    return [line.replace("'.[", f"'{wheel}[") for line in lines]


@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_the_package_and_its_data_are_in(built, kind):
    if kind == "wheel":
        (wheel,) = built.glob("*.whl")
        names = zipfile.ZipFile(wheel).namelist()
    else:
        (sdist,) = built.glob("*.tar.gz")
        with tarfile.open(sdist) as archive:
            names = [name.partition("/")[2] for name in archive.getnames()]
    ours = [path for path in (REPOSITORY / "flowerray").rglob("*") if path.is_file()]
    ours = [path for path in ours if "__pycache__" not in path.parts]
    assert {str(path.relative_to(REPOSITORY)) for path in ours} <= set(names)
    assert {"flowerray/py.typed", "flowerray/reports/templates/labels.html"} <= set(names)
    assert not [name for name in names if name.startswith("tests")]


def test_the_commands_of_the_readme_run_from_the_wheel_alone(built, empty_environment, tmp_path):
    python = empty_environment("alone")
    (wheel,) = built.glob("*.whl")
    shutil.copy(wheel, tmp_path)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment |= {
        "PATH": f"{python.parent}:{os.environ['PATH']}",
        "PIP_CONSTRAINT": str(REPOSITORY / "constraints.txt"),
    }
    install, *jobs = commands(wheel.name)
    assert wheel.name in install and len(jobs) == 6
    for command in (install, *jobs, jobs[-2]):  # to label again, when there is nothing left to do
        done = subprocess.run(
            command,
            shell=True,
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=400,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    assert verify(str(tmp_path / "labels")).whole
