"""The wheel by itself: what is in it, and the README's demo from it."""

import os
import shutil
import subprocess
import tarfile
import zipfile

import pytest
from conftest import REPOSITORY

from flowerray.commands.verify import verify

pytestmark = pytest.mark.slow


def demo():
    """The commands of the README's block that begins with the wheel's installation."""
    blocks = (REPOSITORY / "README.md").read_text().split("\n\n")
    (block,) = (block for block in blocks if block.startswith("    pip install flowerray-"))
    return block.replace("\\\n", "").splitlines()


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


def test_the_demo_of_the_readme_runs_from_the_wheel_alone(built, empty_environment, tmp_path):
    python = empty_environment("alone")
    (wheel,) = built.glob("*.whl")
    shutil.copy(wheel, tmp_path)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment |= {
        "PATH": f"{python.parent}:{os.environ['PATH']}",
        "PIP_CONSTRAINT": str(REPOSITORY / "constraints.txt"),
    }
    commands = demo()
    assert [command.split()[0] for command in commands] == ["pip", *["flowerray"] * 3]
    for command in (*commands, commands[-1]):  # the last again, when there is nothing left to do
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
    assert verify(str(tmp_path / "demo/results/labels")).whole
