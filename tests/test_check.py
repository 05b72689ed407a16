"""Planted faults, in drawn and in real photographs, and the odds and ends of `flowerray check`."""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import PEAK_MEMORY
from PIL import Image
from planted import EXACT, NEAR, counts, plant

from flowerray.cli import main
from flowerray.commands.check import check
from flowerray.commands.extract import extract
from flowerray.commands.sample import LABELLED, draw
from flowerray.errors import FlowerrayError
from flowerray.settings import CHECKS, CheckSettings, ExtractSettings
from flowerray.trust.duplicates import NEAR_BITS, Copies, copied_pairs, near_pairs
from flowerray.trust.suspects import out_of_fold


def found(source, **settings):
    """The findings by check."""
    done = check(CheckSettings(source=str(source), **settings))
    return done, {name: [f for f in done.findings if f.check == name] for name in CHECKS}


@pytest.fixture
def labelled(sample, tmp_path):
    """Ten drawings of each of three classes, to be spoiled."""
    return shutil.copytree(sample.labelled, tmp_path / "labelled")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Forty drawings of each class in train/ and ten in valid/, with planted faults."""
    root = tmp_path_factory.mktemp("drawn")
    for label in ("rose", "sunflower", "tulip"):
        for split, numbers in (("train", range(40)), ("valid", range(40, 50))):
            folder = root / "good" / split / label
            folder.mkdir(parents=True)
            for i in numbers:
                (folder / f"{label}-{i}.jpg").write_bytes(draw(label, 0, LABELLED, i))
    photographs = sorted((root / "good").rglob("*.jpg"))
    return root / "planted", plant(photographs, root / "planted", seed=0)


@pytest.fixture(scope="module")
def real(flower_photos, tmp_path_factory):
    """A fifth of the real photographs, with planted faults; benchmarks/planted.py does all."""
    photographs = [
        path
        for split, count in (("train", 100), ("valid", 20))
        for folder in sorted((flower_photos / split).iterdir())
        for path in sorted(folder.iterdir())[:count]
    ]
    target = tmp_path_factory.mktemp("real") / "planted"
    return target, plant(photographs, target, seed=0)


@pytest.mark.parametrize("photographs", ["drawn", "real"])
def test_planted_faults_are_found(photographs, local_ray, request, tmp_path):
    target, planted = request.getfixturevalue(photographs)
    features = tmp_path / "features"
    extract(ExtractSettings(images=str(target), out=str(features)))
    for source in (target, features):
        done = check(CheckSettings(source=str(source)))
        table = counts(done, planted)
        assert table["exact_duplicate"][:2] == (EXACT, EXACT)
        assert table["near_duplicate"][:2] == (NEAR, NEAR)
        assert table["leakage"][:2] == (EXACT + NEAR, EXACT + NEAR)
        own = {"drawn": 0, "real": 11}[photographs]  # copies that all 1,650 have of themselves
        assert table["exact_duplicate"][2] + table["near_duplicate"][2] <= own
    assert table["mislabelled, the first 40"][1] >= 15
    suspect = next(f for f in done.findings if f.uri in planted.swapped)
    assert suspect.suggested_label != suspect.label


def test_photographs_say_that_labels_need_features(labelled, capsys):
    done, _ = found(labelled)
    assert "mislabelled" not in done.counts and done.photographs == 30
    (note,) = done.notes
    assert f"flowerray extract {labelled} --out features" in note
    assert found(labelled, only="leakage,small")[0].notes == []


def test_the_same_photograph_under_two_labels(labelled):
    original = labelled / "rose" / "rose-0001.jpg"
    shutil.copy(original, labelled / "tulip" / "exact.jpg")
    Image.open(original).resize((200, 150)).save(labelled / "sunflower" / "near.png")
    _, by_check = found(labelled)
    pairs = {frozenset((f.uri, f.other_uri)) for f in by_check["two_labels"]}
    exact, near = labelled / "tulip" / "exact.jpg", labelled / "sunflower" / "near.png"
    assert pairs == {frozenset((str(original), str(copy))) for copy in (exact, near)}
    (duplicate,) = by_check["exact_duplicate"]
    assert (duplicate.score, duplicate.detail) == (0, "same bytes")
    assert len(by_check["near_duplicate"]) == 2  # each of the others names its nearest


def test_leakage_names_the_photograph_to_validate_with(labelled, tmp_path):
    rows = ["uri,label,split"]
    for i, path in enumerate(sorted(labelled.rglob("*.jpg"))):
        rows.append(f"{path},{path.parent.name},{'valid' if i % 10 == 0 else 'train'}")
    copy = tmp_path / "copy.jpg"
    shutil.copy(labelled / "rose" / "rose-0001.jpg", copy)  # rose-0001 is to validate with
    rows.append(f"{copy},rose,train")
    (tmp_path / "set.csv").write_text("\n".join(rows) + "\n")
    (leak,) = found(tmp_path / "set.csv")[1]["leakage"]
    assert leak.uri == str(labelled / "rose" / "rose-0001.jpg") and leak.other_uri == str(copy)


def test_odd_files_are_named_with_their_reason(labelled):
    (labelled / "rose" / "half.jpg").write_bytes(
        (labelled / "rose" / "rose-0001.jpg").read_bytes()[:2000]
    )
    (labelled / "rose" / "empty.jpg").write_bytes(b"")
    Image.effect_noise((900, 250), 50).save(labelled / "tulip" / "wide.png")
    Image.effect_noise((100, 120), 50).save(labelled / "tulip" / "tiny.png")
    done, by_check = found(labelled)
    assert {f.detail.partition(":")[0] for f in by_check["unreadable"]} == {"truncated", "empty"}
    assert done.labels == {"rose": 10, "sunflower": 10, "tulip": 12}
    (wide,) = by_check["extreme_aspect"]
    assert wide.uri.endswith("wide.png") and wide.score == 3.6
    assert str(labelled / "tulip" / "tiny.png") in {f.uri for f in by_check["small"]}
    assert not found(labelled, min_side=100)[1]["small"]
    refused = found(labelled, max_megapixels=0.2)[1]["unreadable"]
    assert "too_large: 900x250 pixels" in {f.detail.partition(";")[0] for f in refused}


def test_uneven_classes(labelled):
    for name in sorted(labelled.glob("tulip/*"))[2:]:
        name.unlink()
    _, by_check = found(labelled, max_imbalance=4, min_photographs=5)
    (imbalance,) = by_check["imbalance"]
    assert (imbalance.uri, imbalance.label, imbalance.score) == ("", "tulip", 5)
    assert [f.label for f in by_check["few_photographs"]] == ["tulip"]
    assert not found(labelled, max_imbalance=5, min_photographs=2)[1]["imbalance"]


def test_a_set_that_can_not_be_trained_on_is_checked(labelled):
    for name in sorted(labelled.glob("tulip/*"))[1:]:
        name.unlink()
    (labelled / "empty").mkdir()
    _, by_check = found(labelled, min_photographs=5)
    assert [f.label for f in by_check["few_photographs"]] == ["tulip"]


def test_features_are_checked_where_the_files_are_gone(labelled, local_ray, tmp_path):
    shutil.copy(labelled / "rose" / "rose-0001.jpg", labelled / "rose" / "copy.jpg")
    (labelled / "rose" / "empty.jpg").write_bytes(b"")
    features = tmp_path / "features"
    extract(ExtractSettings(images=str(labelled), out=str(features), base="thumbnail"))
    before = found(features)[1]
    assert len(before["exact_duplicate"]) == 1 and not before["small"]
    shutil.rmtree(labelled)
    done, after = found(features)
    assert "31 photographs can't be read" in done.notes[0] and "missing" in done.notes[0]
    assert not after["exact_duplicate"] and done.labels["rose"] == 11
    assert [f.detail.partition(":")[0] for f in after["unreadable"]] == ["empty"]
    (features / "shards" / "000000000000.parquet").unlink()
    with pytest.raises(FlowerrayError, match="lacks 1 of its 1 shards"):
        check(CheckSettings(source=str(features)))


def test_classes_with_too_few_photographs_are_not_judged(labelled, local_ray, tmp_path):
    for name in sorted(labelled.glob("tulip/*"))[4:]:
        name.unlink()
    for i in range(6):  # copies make a class no larger
        shutil.copy(labelled / "tulip" / "tulip-0001.jpg", labelled / "tulip" / f"copy-{i}.jpg")
    features = tmp_path / "features"
    extract(ExtractSettings(images=str(labelled), out=str(features), base="thumbnail"))
    done, by_check = found(features)
    assert done.notes == ["tulip: fewer than 5 different photographs, too few to judge labels"]
    assert not {f.label for f in by_check["mislabelled"]} & {"tulip"}
    assert len(by_check["exact_duplicate"]) == 6


def test_copies_are_never_on_both_sides_of_a_fold():
    """Noise can't be learned, only recognised."""
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(60, 100)).astype(np.float32)
    labels = rng.integers(0, 2, 60)
    twice, labels = np.repeat(noise, 2, axis=0), np.repeat(labels, 2)

    def accuracy(groups):
        return (out_of_fold(twice, labels, groups).argmax(axis=1) == labels).mean()

    assert accuracy(np.arange(120)) > 0.8
    assert accuracy(np.repeat(np.arange(60), 2)) < 0.65


def test_near_pairs_are_those_of_a_plain_loop(monkeypatch):
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 1 << 6, (300, 2)).astype(np.uint64)
    whole = [int(high) << 64 | int(low) for high, low in hashes]
    expected = {
        (i, j, (whole[i] ^ whole[j]).bit_count())
        for i in range(300)
        for j in range(i + 1, 300)
        if (whole[i] ^ whole[j]).bit_count() <= 3
    }
    monkeypatch.setattr(sys.modules["flowerray.trust.duplicates"], "PAIRS_AT_ONCE", 7000)
    pairs = near_pairs(hashes, 3)
    assert set(zip(*(column.tolist() for column in pairs), strict=True)) == expected
    assert all(len(column) == 0 for column in near_pairs(hashes[:0], 3))


def test_the_command(labelled, tmp_path, capsys):
    shutil.copy(labelled / "rose" / "rose-0001.jpg", labelled / "tulip" / "new\nline.jpg")
    out = tmp_path / "findings.csv"
    only = ("--only", "two_labels,exact_duplicate,leakage")
    assert main(["check", str(labelled), "--out", str(out), *only]) == 0
    text = capsys.readouterr().out
    assert "31 photographs: 10 rose, 10 sunflower, 11 tulip" in text
    assert "two_labels: 1 have a copy with another label" in text
    rows = list(csv.DictReader(out.open(newline="")))
    assert list(rows[0]) == [
        *("check", "uri", "other_uri", "label", "suggested_label", "score", "detail", "group")
    ]
    assert {"two_labels", "exact_duplicate"} <= {row["check"] for row in rows}
    assert rows[0]["uri"].endswith("new\nline.jpg")

    assert main(["check", str(labelled), *only, "--strict", "--json"]) == 1
    done = json.loads(capsys.readouterr().out)
    assert done["counts"]["two_labels"] == 1 and not done["passed"]
    (labelled / "tulip" / "new\nline.jpg").unlink()
    assert main(["check", str(labelled), *only, "--strict"]) == 0
    assert "nothing found: two_labels, exact_duplicate, leakage" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["check", "nowhere"], 1, "no photographs at nowhere"),
        (["check", "{set}", "--only", "leaks"], 2, "--only names 'leaks'"),
        (["check", "{set}", "--max-aspect", "0.5"], 2, "--max-aspect is 0.5"),
        (["check", "{set}", "--out", "{set}"], 1, "can't write"),
    ],
)
def test_bad_calls_are_told_in_one_line(arguments, code, message, labelled, capsys):
    assert main([word.format(set=labelled) for word in arguments]) == code
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_a_pile_without_labels_is_checked_for_copies(sample):
    done, by_check = found(sample.pile)
    assert done.labels == {} and len(by_check["unreadable"]) == 4
    assert not by_check["leakage"] and not by_check["two_labels"]


@pytest.mark.parametrize("seed", range(20))
def test_the_nearest_copies_are_those_among_all_pairs(seed):
    chance = np.random.default_rng(seed)
    base = chance.integers(0, 2**63, (4, 4), np.uint64)
    kinds = chance.integers(0, 8, 120)
    hashes = base[kinds % 4].copy()
    hashes[:, 0] ^= (kinds // 4).astype(np.uint64)  # the other half is a bit away
    contents = kinds * 5 + chance.integers(0, 5, 120)
    labels, splits = chance.integers(0, 6, 120), chance.integers(0, 3, 120)
    first, second, bits = near_pairs(hashes, NEAR_BITS)
    every = Copies(first, second, bits, contents[first] == contents[second])
    first, second, bits = copied_pairs(hashes, contents, labels, splits)
    few = Copies(first, second, bits, contents[first] == contents[second])
    assert len(few.first) < len(every.first)
    assert np.array_equal(few.groups(120), every.groups(120))

    def findings(copies):
        both = copies.both_ways()
        leaks = (splits[both.first] == 1) & (splits[both.second] == 2)
        known = (labels[copies.first] != 0) & (labels[copies.second] != 0)
        others = labels[copies.first] != labels[copies.second]
        for pairs in (
            copies.chosen(copies.exact),
            copies.chosen(~copies.exact),
            both.chosen(leaks),
            copies.chosen(known & others),
        ):
            near = pairs.nearest()
            yield [near.first.tolist(), near.second.tolist(), near.bits.tolist()]

    assert list(findings(few)) == list(findings(every))


def test_a_picture_that_is_there_twenty_thousand_times_costs_no_pairs():
    script = f"""
import numpy as np
from flowerray.trust.duplicates import copied_pairs
chance, n = np.random.default_rng(0), 20_000
hashes = chance.integers(0, 2**63, (2 * n, 4), np.uint64)
hashes[:n] = hashes[0]
contents = np.arange(2 * n)  # one picture, saved in as many ways
contents[: n // 2] = 0
labels, splits = chance.integers(0, 1000, 2 * n), chance.integers(0, 2, 2 * n)
before = {PEAK_MEMORY}
first, second, bits = copied_pairs(hashes, contents, labels, splits)
assert set(second[bits == 0]) == set(range(1, n))
print({PEAK_MEMORY} - before)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 400_000  # KiB


def test_one_of_each_group_of_copies_is_kept(sample, tmp_path, local_ray):
    from PIL import Image

    pile = tmp_path / "pile"
    pile.mkdir()
    originals = sorted(p for p in sample.pile.rglob("*.jpg") if p.stat().st_size > 1000)[:6]
    for number, original in enumerate(originals):
        (pile / f"{number}.jpg").write_bytes(original.read_bytes())
    Image.open(originals[0]).resize((160, 120)).save(pile / "0-small.jpg", quality=60)
    (pile / "0-same.jpg").write_bytes(originals[0].read_bytes())
    (pile / "1-same.jpg").write_bytes(originals[1].read_bytes())
    extract(ExtractSettings(images=str(pile), out=str(tmp_path / "f"), base="thumbnail"))
    done = check(CheckSettings(source=str(tmp_path / "f"), keep_one=str(tmp_path / "one.csv")))
    assert any("2 groups of copies; 6 of 9 photographs" in note for note in done.notes)
    rows = list(csv.DictReader((tmp_path / "one.csv").open()))
    assert len({Path(row["uri"]).name[0] for row in rows}) == len(rows) == 6
    again = ExtractSettings(
        images=str(tmp_path / "one.csv"), out=str(tmp_path / "g"), base="thumbnail"
    )
    assert extract(again).photographs == 6


@pytest.fixture(scope="module")
def pile_with_copies(flower_photos, tmp_path_factory):
    """Forty real photographs, and of the first six copies: the same bytes, encoded again, halved,
    cropped by 3%."""
    pile = tmp_path_factory.mktemp("copies") / "pile"
    pile.mkdir()
    for number, original in enumerate(sorted(flower_photos.rglob("*.jpg"))[::41][:40]):
        shutil.copyfile(original, pile / f"{number:02d}.jpg")
    for number in range(6):
        name = f"{number:02d}"
        shutil.copyfile(pile / f"{name}.jpg", pile / f"{name}-same.jpg")
        image = Image.open(pile / f"{name}.jpg").convert("RGB")
        image.save(pile / f"{name}-again.jpg", quality=50)
        image.resize((image.width // 2, image.height // 2)).save(pile / f"{name}-half.jpg")
        x, y = round(image.width * 0.015), round(image.height * 0.015)
        image.crop((x, y, image.width - x, image.height - y)).save(pile / f"{name}-cropped.jpg")
    (pile / "broken.jpg").write_bytes(b"")
    return pile


@pytest.mark.slow
def test_the_copies_in_a_piles_features_are_groups(pile_with_copies, local_ray, tmp_path, capsys):
    pile, features, kept = pile_with_copies, str(tmp_path / "f"), str(tmp_path / "one.csv")
    extract(ExtractSettings(images=str(pile), out=features))
    out = tmp_path / "findings.csv"
    assert main(["check", features, "--out", str(out), "--keep-one", kept]) == 0
    told = capsys.readouterr().out
    assert "exact_duplicate: 6" in told and "near_duplicate: 18" in told
    assert "30 of 65 photographs have another of nearly the same embedding and were read" in told
    assert "6 groups of copies; 40 of 64 photographs" in told
    rows = list(csv.DictReader(out.open()))
    groups = {}
    for row in rows:
        if row["check"] != "unreadable":
            groups.setdefault(row["group"], set()).update((row["uri"], row["other_uri"]))
    names = [{Path(uri).name[:2] for uri in group} for group in groups.values()]
    assert sorted(map(sorted, names)) == [[f"{number:02d}"] for number in range(6)]
    assert all(len(group) == 5 for group in groups.values())
    # What is left is a pile again.
    extract(ExtractSettings(images=kept, out=str(tmp_path / "g"), base="thumbnail"))
    with open(kept, newline="") as stream:
        listed = [Path(row["uri"]).name[:2] for row in csv.DictReader(stream)]
    assert sorted(listed) == [f"{number:02d}" for number in range(40)]


@pytest.mark.slow
def test_a_pile_whose_files_are_gone_loses_nothing(pile_with_copies, local_ray, tmp_path):
    pile = shutil.copytree(pile_with_copies, tmp_path / "pile")
    for name in pile.glob("[1-9]*.jpg"):
        name.unlink()
    features = str(tmp_path / "f")
    extract(ExtractSettings(images=str(pile), out=features))
    shutil.rmtree(pile)
    kept = tmp_path / "one.csv"
    done = check(CheckSettings(source=features, keep_one=str(kept)))
    assert done.counts == {"unreadable": 1, "exact_duplicate": 0, "near_duplicate": 0}
    assert any("30 of them can't be any more (missing)" in note for note in done.notes)
    assert len(list(csv.DictReader(kept.open()))) == 34


def test_near_groups_are_those_of_a_plain_comparison(monkeypatch):
    from flowerray.heads.copies import connected
    from flowerray.trust import neighbours

    monkeypatch.setattr(neighbours, "TILE", 64)
    chance = np.random.default_rng(0)
    rows = chance.normal(size=(300, 80))
    rows[100:200] = rows[:100] + chance.normal(size=(100, 80)) * chance.random((100, 1)) / 2
    rows[250:] = rows[249] + 0.01 * chance.normal(size=(50, 80))  # one picture fifty times
    embeddings = (rows * chance.uniform(0.5, 2, (300, 1))).astype(np.float16)
    unit = embeddings / np.linalg.norm(embeddings.astype(np.float32), axis=1, keepdims=True)
    expected = connected(*np.nonzero(np.triu(unit @ unit.T >= 0.95, 1)), 300)
    assert 60 < len(set(expected)) < 240
    for few in (0, 1 << 14):  # however the pairs of a tile are compared
        monkeypatch.setattr(neighbours, "FEW", few)
        found = neighbours.near_groups(embeddings, 0.95)
        assert len(set(zip(found, expected, strict=True))) == len(set(found)) == len(set(expected))
    assert len(neighbours.near_groups(embeddings[:0], 0.95)) == 0


def test_a_picture_that_is_there_many_times_costs_no_pairs_of_embeddings():
    script = f"""
import numpy as np
from flowerray.trust.neighbours import near_groups
chance, n = np.random.default_rng(0), 20_000
rows = np.repeat(chance.normal(size=(1, 64)), n, axis=0) + 0.01 * chance.normal(size=(n, 64))
before = {PEAK_MEMORY}
assert len(set(near_groups(rows.astype(np.float16), 0.95))) == 1
print({PEAK_MEMORY} - before)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 600_000  # KiB; all pairs would be six times as much


def test_hashes_confirm_only_what_embeddings_join():
    from flowerray.trust.duplicates import SAME_SCENE_BITS, confirmed

    hashes = np.zeros((6, 4), np.uint64)
    hashes[1, 0] = (1 << SAME_SCENE_BITS) - 1  # as many bits as may differ
    hashes[2, 0], hashes[2, 1] = (1 << 64) - 1, 1  # one more, but near the former
    hashes[4, 2:] = (1 << 64) - 1
    groups = confirmed(np.array([0, 0, 0, 1, 1, 2]), hashes)
    assert groups[0] == groups[1] == groups[2]
    assert len({groups[0], groups[3], groups[4], groups[5]}) == 4
