"""The drawn sample set: whole, repeatable, and never written over anything."""

import csv
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from flowerray.commands import sample
from flowerray.commands.sample import SampleSet, draw_sample

CLASSES = ("rose", "sunflower", "tulip")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def truth_of(drawn: SampleSet) -> dict[str, str]:
    with open(drawn.truth, newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["file", "label"]
    return dict(rows[1:])


def is_readable(path: Path) -> bool:
    try:
        with Image.open(path) as picture:
            picture.load()
    except OSError:
        return False
    return True


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> SampleSet:
    return draw_sample(tmp_path_factory.mktemp("drawn") / "sample", per_class=4, seed=7)


def test_same_seed_gives_the_same_bytes_and_another_seed_does_not(tmp_path, drawn):
    draw_sample(tmp_path / "again", per_class=4, seed=7)
    draw_sample(tmp_path / "other", per_class=4, seed=8)
    first, again = contents(drawn.pile.parent), contents(tmp_path / "again")
    assert first == again
    assert first["labelled/rose/rose-0001.jpg"] not in contents(tmp_path / "other").values()


def test_no_drawing_comes_twice(drawn):
    drawings = list(contents(drawn.labelled).values())
    drawings += [(drawn.pile / name).read_bytes() for name in truth_of(drawn)]
    assert len(set(drawings)) == len(drawings)


def test_counts(drawn):
    labelled = Counter(path.parent.name for path in drawn.labelled.rglob("*.jpg"))
    assert labelled == dict.fromkeys(CLASSES, 4)
    assert Counter(truth_of(drawn).values()) == dict.fromkeys(CLASSES, 4)
    assert drawn.photographs == 24
    assert len(list(drawn.pile.iterdir())) == 12 + drawn.broken


def test_truth_names_the_readable_files_of_the_pile_and_no_others(drawn):
    names = {path.name for path in drawn.pile.iterdir()}
    readable = {name for name in names if is_readable(drawn.pile / name)}
    assert readable == set(truth_of(drawn))
    assert len(names - readable) == drawn.broken == 4
    assert all(name.startswith("photo-") for name in names)


def test_pile_is_shuffled_and_of_several_formats(drawn):
    labels = [label for _, label in sorted(truth_of(drawn).items())]
    assert labels != sorted(labels)
    formats = Counter(Image.open(drawn.pile / name).format for name in truth_of(drawn))
    assert formats.most_common(1)[0][0] == "JPEG"
    for name in truth_of(drawn):
        suffix = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp"}
        assert name.endswith(suffix[Image.open(drawn.pile / name).format])


def test_readme_says_drawn_and_how(drawn):
    readme = (drawn.pile.parent / "README.txt").read_text(encoding="utf-8")
    assert "drawn by flowerray, not photographed" in readme
    assert "flowerray sample DIR --per-class 4 --seed 7" in readme


def test_a_second_call_returns_the_set_unchanged(drawn):
    root = drawn.pile.parent
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    assert draw_sample(root, per_class=4, seed=7) == drawn
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


@pytest.mark.parametrize("settings", [{"per_class": 4, "seed": 8}, {"per_class": 5, "seed": 7}])
def test_another_sample_set_is_refused(drawn, settings):
    with pytest.raises(FileExistsError, match="choose another directory, or delete it"):
        draw_sample(drawn.pile.parent, **settings)


def test_a_directory_in_use_is_refused_and_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(FileExistsError) as refusal:
        draw_sample(tmp_path, per_class=2)
    assert str(tmp_path) in str(refusal.value) and "\n" not in str(refusal.value)
    assert contents(tmp_path) == {"mine.txt": b"mine"}


def test_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(FileExistsError):
        draw_sample(tmp_path / "file", per_class=2)


def test_an_empty_directory_is_filled(tmp_path):
    target = tmp_path / "empty"
    target.mkdir()
    inode = target.stat().st_ino
    assert draw_sample(target, per_class=2).truth.is_file()
    assert target.stat().st_ino == inode
    assert list(tmp_path.iterdir()) == [target]


def test_an_interrupted_run_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(sample, "write_pile", interrupt)
    with pytest.raises(KeyboardInterrupt):
        draw_sample(tmp_path / "sample", per_class=2)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("settings", [{"per_class": 1}, {"per_class": 2, "seed": -1}])
def test_settings_out_of_range_are_refused(tmp_path, settings):
    with pytest.raises(ValueError):
        draw_sample(tmp_path / "sample", **settings)
    assert list(tmp_path.iterdir()) == []
