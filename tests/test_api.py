"""The package's calls: one thing under one name, whatever was imported, with every option typed."""

import inspect
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY

import flowerray as fr
from flowerray import api, settings

ORDERS = {
    "nothing before": "",
    "the module before": "import flowerray.commands.label",
    "its function before": "from flowerray.commands.label import label",
    "another module that imports it before": "import flowerray.commands.run",
    "importlib before": "import importlib; importlib.import_module('flowerray.commands.label')",
}


@pytest.mark.parametrize("order", ORDERS)
def test_label_is_the_call_whatever_was_imported_before_or_afterwards(order):
    script = f"""
{ORDERS[order]}
import flowerray as fr
from flowerray import label
assert label is fr.label and callable(label)
import flowerray.commands.label, flowerray.commands.report, flowerray.commands.check
from flowerray.commands.label import label as job
from flowerray import label as again
from flowerray.heads import classifier
assert again is fr.label is label and job is not label
import importlib, pickle
assert importlib.import_module("flowerray.commands.label").label is job
assert pickle.loads(pickle.dumps(label)) is label
assert classifier.__name__ == "flowerray.heads.classifier"
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_importing_the_package_imports_nothing_heavy():
    script = (
        "import sys, flowerray\n"
        "heavy = {'ray', 'tensorflow', 'keras', 'numpy', 'pyarrow', 'PIL', 'yaml'}\n"
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_signatures_for_editors_are_those_of_the_settings():
    stub = REPOSITORY / "flowerray" / "__init__.pyi"
    assert stub.read_text() == api.stub(), "run `make stubs`"


def test_a_type_checker_knows_every_option_and_what_comes_back(tmp_path):
    pytest.importorskip("mypy")
    script = tmp_path / "script.py"
    script.write_text(
        "from pathlib import Path\n"
        "import flowerray as fr\n"
        "import flowerray.commands.label\n"
        "from flowerray import label\n"
        "done = fr.label(Path('pile'), classifier='classifier', out='labels', top_k=1)\n"
        "done.labels['rose'] + 1\n"
        "label('pile', classifier='classifier', out='labels', top_k='1')\n"
        "label('pile', classifier='classifier')\n"
        "label('pile', classifier='classifier', out='labels', format='xml')\n"
    )
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", str(script)],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
    )
    errors = [line for line in checked.stdout.splitlines() if ": error: " in line]
    assert [int(line.split(":")[1]) for line in errors] == [7, 8, 9], checked.stdout


@pytest.mark.parametrize("name", api.CALLS)
def test_each_call_lists_its_options_with_types_and_defaults(name):
    call = getattr(fr, name)
    assert name in fr.__all__ and call.__module__ == "flowerray"
    for parameter in inspect.signature(call).parameters.values():
        given = "" if parameter.default is parameter.empty else f", default {parameter.default!r}"
        assert f"{parameter.name} ({parameter.annotation}{given}): " in " ".join(
            call.__doc__.split()
        )


def test_a_wrong_call_says_what_is_wrong_with_it(tmp_path):
    with pytest.raises(
        TypeError, match=r"unexpected keyword argument 'clasifier'; did you mean classifier\?"
    ):
        fr.label("pile", clasifier="classifier", out="labels")
    with pytest.raises(TypeError, match=r"label\(\) missing a required .*'classifier'"):
        fr.label("pile", out="labels")
    with pytest.raises(fr.UsageError, match="--top-k is 'all'; it must be a whole number"):
        fr.label("pile", classifier="classifier", out="labels", top_k="all")
    with pytest.raises(fr.UsageError, match="--append is 1; it must be true or false"):
        fr.label("pile", classifier="classifier", out="labels", append=1)
    with pytest.raises(fr.UsageError, match="--out is None; it must be text"):
        fr.label("pile", classifier="classifier", out=None)
    with pytest.raises(fr.FlowerrayError, match="flowerray extract"):
        fr.train(tmp_path / "none", out=tmp_path / "classifier")


def test_settings_of_equal_meaning_are_equal():
    images = {"images": "i", "out": "o"}
    given = settings.ExtractSettings(images=Path("i"), out=Path("o"), max_megapixels=100)
    assert given == settings.ExtractSettings(**images)
    assert type(given.max_megapixels) is float and type(given.images) is str
