"""Label, look, teach, label again: from stored features, keeping what people said."""

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

import flowerray
from flowerray import FlowerrayError, UsageError
from flowerray.cli import main
from flowerray.outputs.derived import accepted_labels
from flowerray.outputs.stored import StoredFeatures, stored_features
from flowerray.trust.shift import Difference

pytestmark = pytest.mark.slow


def rows_of(labels):
    table = ds.dataset(str(Path(labels) / "shards")).to_table().sort_by("image_id")
    return [row for row in table.to_pylist() if row["error"] is None]


def said(path, answers, when="2026-11-27T10:00"):
    lines = [f"{uri},{label},ann,{when}" for uri, label in answers.items()]
    path.write_text("\n".join(["uri,label,who,when", *lines]) + "\n")
    return path


@pytest.fixture(scope="module")
def first(sample, local_ray, tmp_path_factory):
    """Two of the three classes taught; the pile has all three, labelled with its features kept."""
    place = tmp_path_factory.mktemp("loop")
    classes = sorted(p.name for p in sample.labelled.iterdir())
    taught = place / "taught"
    taught.mkdir()
    for name in classes[:-1]:
        (taught / name).symlink_to(sample.labelled / name)
    flowerray.extract(taught, out=place / "features", base="thumbnail")
    flowerray.train(place / "features", out=place / "c1")
    flowerray.label(
        sample.pile,
        classifier=place / "c1",
        out=place / "labels",
        keep_features=place / "kept",
        min_confidence=0.6,
    )
    return place, classes


@pytest.fixture
def truth(sample):
    pairs = (line.split(",") for line in sample.truth.read_text().splitlines()[1:])
    return {str(sample.pile / file): label for file, label in pairs}


def test_stored_features_give_the_labels_of_the_photographs(first, sample, tmp_path):
    place, _ = first
    flowerray.label(sample.pile, classifier=place / "c1", out=tmp_path / "photographs")
    flowerray.label(place / "kept", classifier=place / "c1", out=tmp_path / "features")
    assert rows_of(tmp_path / "features") == rows_of(tmp_path / "photographs")
    assert flowerray.verify(tmp_path / "features").whole


def test_a_round_trip_keeps_what_people_said(first, truth, tmp_path):
    place, (*taught, stranger) = first
    kept, queue = place / "kept", pq.read_table(place / "labels" / "review.parquet")
    strangers = [uri for uri in truth if truth[uri] == stranger]
    decided = dict.fromkeys(strangers[: len(strangers) // 2], "none")
    decided |= {uri: truth[uri] for uri in queue["uri"].to_pylist()[:4] if truth[uri] in taught}
    corrections = said(tmp_path / "said.csv", decided)
    before = rows_of(place / "labels")

    told = flowerray.accept(place / "labels", corrections=corrections, min_confidence=0.6)
    assert told.human == len(decided)
    assert (told.corrections.applied, told.corrections.left_out) == (len(decided), {})
    assert told.unlabelled == sum(label == "none" for label in decided.values())
    flowerray.train(
        *(place / "features",),
        out=tmp_path / "c2",
        corrections=place / "labels" / "corrections.parquet",
        pile_features=kept,
    )
    assert json.loads((tmp_path / "c2" / "classifier.json").read_text())["none_class"] == "none"
    flowerray.label(
        kept,
        classifier=tmp_path / "c2",
        out=tmp_path / "again",
        corrections=corrections,
        min_confidence=0.6,
    )
    for labels in (place / "labels", tmp_path / "again"):
        queue = set(pq.read_table(labels / "review.parquet")["uri"].to_pylist())
        assert not queue & set(decided)
        for row in rows_of(labels):
            if (answer := decided.get(row["uri"])) is None:
                assert row["source"] == "classifier"
                continue
            assert row["source"] == "human"
            assert row["label"] == (None if answer == "none" else answer)
            assert row["accepted"] == (answer != "none")
            assert (row["unlabelled"] == "none of the classes") == (answer == "none")
    undecided = [r for r in rows_of(tmp_path / "again") if r["uri"] not in decided]
    assert not {row["label"] for row in undecided} - {*taught, None}
    # Strangers that nobody decided resemble those that people called none of the classes.
    resembling = {True: [], False: []}
    for row in undecided:
        top = {one["label"]: one["probability"] for one in row["top_k"]}
        resembling[truth[row["uri"]] == stranger].append(top["none"])
    assert np.mean(resembling[True]) > np.mean(resembling[False])

    # The first command still does nothing but count, and leaves the decisions alone.
    now = rows_of(place / "labels")
    done = flowerray.label(kept, classifier=place / "c1", out=place / "labels")
    assert done.computed == 0 and done.human == len(decided)
    assert rows_of(place / "labels") == now
    # The classifier's own answers are there still.
    assert [row["top_k"] for row in now] == [row["top_k"] for row in before]


def test_corrections_that_do_nothing_are_told_with_why(first, sample, truth, tmp_path, capsys):
    place, (one, *_) = first
    uris = list(truth)
    broken = next(str(f) for f in sorted(sample.pile.iterdir()) if str(f) not in truth)
    flowerray.label(place / "kept", classifier=place / "c1", out=tmp_path / "l")
    flowerray.accept(
        tmp_path / "l", corrections=said(tmp_path / "new.csv", {uris[0]: one}, "2026-11-28")
    )
    answers = {uris[0]: "none", uris[1]: one, uris[2]: one, uris[3]: "", broken: one}
    file = said(tmp_path / "said.csv", {**answers, "/another/pile/1.jpg": one})
    left_out = {
        "older than another answer": 1,
        "without a label": 1,
        "of photographs that can't be read": 1,
        "of photographs that are not in these labels": 1,
    }
    told = flowerray.accept(tmp_path / "l", corrections=file)
    assert (told.corrections.applied, told.corrections.left_out) == (2, left_out)
    capsys.readouterr()
    assert (
        main(
            [
                "label",
                str(place / "kept"),
                "--classifier",
                str(place / "c1" / "head.keras"),
                "--out",
                str(tmp_path / "again"),
                "--corrections",
                str(file),
            ]
        )
        == 0
    )
    line = next(x for x in capsys.readouterr().out.splitlines() if x.startswith("corrections: "))
    assert line.startswith("corrections: 3 applied; left out: 1 ") and "1 without a label" in line
    assert flowerray.accept(tmp_path / "l", min_confidence=0.5).corrections is None


def test_a_training_tells_what_became_of_corrections(first, sample, truth, tmp_path, capsys):
    place, (one, *_) = first
    uris = list(truth)
    broken = next(str(f) for f in sorted(sample.pile.iterdir()) if str(f) not in truth)
    answers = {uris[0]: one, uris[1]: "", uris[2]: "daisy", uris[3]: "none", broken: one}
    file = said(tmp_path / "said.csv", answers)
    words = ["train", str(place / "features" / "run.json"), "--out", str(tmp_path / "c")]
    words += ["--corrections", str(file), "--pile-features", str(place / "kept" / "run.json")]
    for _ in range(2):  # again: it is done already
        assert main([*words, "--recipe", "logistic"]) == 0
        told = capsys.readouterr()
        assert (
            "corrections: 2 applied; left out: 1 of classes with fewer than 10 photographs, 1 "
            "without a label, of photographs that the features lack, 1 of photographs that can't "
            "be read\n"
        ) in told.out
        assert "epoch" not in told.err
    assert (tmp_path / "c" / "history.csv").read_text().startswith("accuracy,val_accuracy\n")


def test_lists_are_json_too(first, truth, capsys):
    place, _ = first
    uri = next(iter(truth))
    assert main(["similar", str(place / "kept"), uri, "--number", "3", "--json"]) == 0
    ((name, found),) = [one.values() for one in json.loads(capsys.readouterr().out)]
    assert name == uri and [set(one) for one in found] == [{"uri", "cosine"}] * 3
    words = ["predict", uri, "--classifier", str(place / "c1" / "classifier.json"), "--json"]
    assert main(words) == 0
    (one,) = json.loads(capsys.readouterr().out)
    assert one["uri"] == uri and one["label"] in one["probabilities"]


def test_accepting_again_goes_any_way_round(first, tmp_path):
    place, _ = first
    flowerray.label(place / "kept", classifier=place / "c1", out=tmp_path / "l")
    assert {row["accepted"] for row in rows_of(tmp_path / "l")} == {None}
    flowerray.accept(tmp_path / "l", min_confidence=0.5)
    loose = rows_of(tmp_path / "l")
    flowerray.accept(tmp_path / "l", min_confidence=0.9)
    strict = rows_of(tmp_path / "l")
    assert accepted_in(strict) < accepted_in(loose)
    (tmp_path / "t.json").write_text(json.dumps(dict.fromkeys(classes_in(tmp_path / "l"), 0.5)))
    told = flowerray.accept(tmp_path / "l", thresholds=tmp_path / "t.json")
    assert rows_of(tmp_path / "l") == loose
    assert sum(told.accepted.values()) == accepted_in(loose)
    queue = pq.read_table(tmp_path / "l" / "review.parquet")
    assert queue["uri"].to_pylist() == [
        row["uri"]
        for row in sorted(loose, key=lambda row: row["confidence"] or 0)
        if row["accepted"] is False
    ]


def accepted_in(rows):
    return sum(bool(row["accepted"]) for row in rows)


def classes_in(labels):
    return json.loads((labels / "run.json").read_text())["config"]["classes"]


def test_an_accept_that_was_cut_short_is_gone_on_with(first, tmp_path, monkeypatch):
    from flowerray.commands import accept

    place, _ = first
    flowerray.label(
        place / "kept",
        classifier=place / "c1",
        out=tmp_path / "l",
        min_confidence=0.5,
        format="csv",
    )

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as cut, pytest.raises(KeyboardInterrupt):
        cut.setattr(accept, "finished", stop)
        flowerray.accept(tmp_path / "l", min_confidence=0.9)
    with pytest.raises(FlowerrayError, match=r"has not ended.*run `flowerray accept` again"):
        flowerray.export(tmp_path / "l", format="csv", out=tmp_path / "out.csv")
    flowerray.accept(tmp_path / "l", min_confidence=0.9)
    assert (tmp_path / "l" / "labels.csv").exists()
    flowerray.export(tmp_path / "l", format="csv", out=tmp_path / "out.csv")
    assert "deciding" not in json.loads((tmp_path / "l" / "run.json").read_text())


def test_what_was_appended_is_decided_as_the_rest(first, sample, tmp_path):
    place, _ = first
    some = sorted(sample.pile.iterdir())
    listed = tmp_path / "pile.txt"
    listed.write_text("\n".join(map(str, some[:20])))
    options = {"classifier": place / "c1", "out": tmp_path / "l", "keep_features": tmp_path / "f"}
    flowerray.label(listed, **options, min_confidence=0.7)
    listed.write_text("\n".join(map(str, some[:30])))
    flowerray.label(listed, **options, append=True)
    rows = rows_of(tmp_path / "l")
    assert {row["accepted"] for row in rows} == {True, False}
    assert flowerray.verify(tmp_path / "l").whole and flowerray.verify(tmp_path / "f").whole


def test_features_are_found_however_their_output_grew(first, tmp_path):
    place, _ = first
    stored = stored_features(str(place / "kept"))
    uris = pq.read_table(place / "kept" / "shards")["uri"]
    there = stored.of("no such shard", uris.take(pa.array([5, 2, 30, 5])))
    assert there["uri"].to_pylist() == uris.take(pa.array([5, 2, 30, 5])).to_pylist()
    assert uris[3].as_py() in stored and "/no/such.jpg" not in stored
    with pytest.raises(FlowerrayError, match=r"has no features of /no/such\.jpg any more"):
        stored.of("none", pa.chunked_array([["/no/such.jpg"]]))
    assert isinstance(stored, StoredFeatures)


def test_a_folder_of_none_is_learned_and_never_given(first, sample, tmp_path):
    place, (*taught, stranger) = first
    labelled = tmp_path / "labelled"
    labelled.mkdir()
    for name in taught:
        (labelled / name).symlink_to(sample.labelled / name)
    (labelled / "other").symlink_to(sample.labelled / stranger)
    flowerray.extract(labelled, out=tmp_path / "f", base="thumbnail")
    trained = flowerray.train(tmp_path / "f", out=tmp_path / "c")
    assert trained.classes == sorted([*taught, "none"])
    flowerray.label(
        place / "kept", classifier=tmp_path / "c", out=tmp_path / "l", min_precision=0.5
    )
    rows = rows_of(tmp_path / "l")
    assert {row["label"] for row in rows} == {*taught, None}
    none = [row for row in rows if row["label"] is None]
    assert none and all(row["unlabelled"] and row["accepted"] is False for row in none)
    assert all(row["top_k"][0]["label"] == "none" for row in none)


def test_a_class_that_people_named_becomes_one_with_photographs_enough(
    first, truth, tmp_path, capsys
):
    place, (*_, stranger) = first
    strangers = [uri for uri in truth if truth[uri] == stranger]
    options = {"pile_features": place / "kept"}
    few = said(tmp_path / "few.csv", dict.fromkeys(strangers[:4], "daisy"))
    done = flowerray.train(place / "features", out=tmp_path / "c", corrections=few, **options)
    assert "daisy" not in done.classes
    assert "with 6 photographs more than the 4" in capsys.readouterr().err
    many = said(tmp_path / "many.csv", dict.fromkeys(strangers[4:10], "daisy"))
    both = f"{few},{many}"
    done = flowerray.train(place / "features", out=tmp_path / "d", corrections=both, **options)
    assert "daisy" in done.classes


def test_the_newest_answer_holds_and_contradictions_are_told(first, truth, tmp_path, capsys):
    place, (one, other, _) = first
    uri = next(iter(truth))
    old = said(tmp_path / "old.csv", {uri: one}, when="2026-11-26")
    new = said(tmp_path / "new.csv", {uri: other}, when="2026-11-27")
    flowerray.label(place / "kept", classifier=place / "c1", out=tmp_path / "l")
    flowerray.accept(tmp_path / "l", corrections=f"{new},{old}")
    assert "1 photographs have different answers, the newest holds" in capsys.readouterr().err
    assert next(row for row in rows_of(tmp_path / "l") if row["uri"] == uri)["label"] == other
    flowerray.accept(tmp_path / "l", corrections=old)  # what is kept is newer
    assert next(row for row in rows_of(tmp_path / "l") if row["uri"] == uri)["label"] == other


def test_what_does_not_fit_is_told_in_one_line(first, sample, tmp_path):
    place, classes = first
    flowerray.extract(sample.pile, out=tmp_path / "raw", base="thumbnail", pool="none")
    with pytest.raises(UsageError, match=r"another make than .*pool: None / embedding"):
        flowerray.label(tmp_path / "raw", classifier=place / "c1", out=tmp_path / "l")
    with pytest.raises(UsageError, match="leave --precision out"):
        flowerray.label(
            sample.pile,
            classifier=place / "c1",
            out=tmp_path / "l",
            keep_features=tmp_path / "k",
            precision="bfloat16",
        )
    flowerray.label(place / "kept", classifier=place / "c1", out=tmp_path / "l")
    other = said(tmp_path / "other.csv", {"/another/pile/1.jpg": classes[0]})
    with pytest.raises(FlowerrayError, match="is it of another pile"):
        flowerray.accept(tmp_path / "l", corrections=other)
    with pytest.raises(UsageError, match="say what is accepted"):
        flowerray.accept(tmp_path / "l")
    (tmp_path / "t.json").write_text('{"nobody": 0.5}')
    with pytest.raises(FlowerrayError, match="names 'nobody', which is no class"):
        flowerray.accept(tmp_path / "l", thresholds=tmp_path / "t.json")
    with pytest.raises(FlowerrayError, match=r"none\.json"):
        flowerray.accept(tmp_path / "l", thresholds=tmp_path / "none.json")
    (tmp_path / "empty.csv").write_text("uri,label\n/a.jpg,\n")
    with pytest.raises(FlowerrayError, match="has no answer yet"):
        flowerray.accept(tmp_path / "l", corrections=tmp_path / "empty.csv")
    alone = tmp_path / "alone"
    alone.mkdir()
    for name, source in zip(("none", "other"), classes, strict=False):
        (alone / name).symlink_to(sample.labelled / source)
    flowerray.extract(alone, out=tmp_path / "none", base="thumbnail")
    with pytest.raises(FlowerrayError, match="stands for none of the others: add a class"):
        flowerray.train(tmp_path / "none", out=tmp_path / "c")


def test_what_is_suggested_is_doubted_different_and_undecided(first, truth, tmp_path):
    place, (one, *_) = first
    flowerray.label(place / "kept", classifier=place / "c1", out=tmp_path / "l")
    told = flowerray.suggest(tmp_path / "l", number=6, out=tmp_path / "look.csv")
    assert len(set(told.uris)) == 6 and set(told.uris) <= set(truth)
    rows = list(csv.DictReader((tmp_path / "look.csv").open()))
    assert [row["uri"] for row in rows] == told.uris
    assert {row["label"] for row in rows} == {""}
    with pytest.raises(UsageError, match="is there: fill that in"):
        flowerray.suggest(tmp_path / "l", out=tmp_path / "look.csv")
    flowerray.accept(
        tmp_path / "l", corrections=said(tmp_path / "said.csv", dict.fromkeys(told.uris, one))
    )
    again = flowerray.suggest(tmp_path / "l", number=6, out=tmp_path / "more.csv")
    assert again.decided >= 6 and not set(again.uris) & set(told.uris)
    cold = flowerray.suggest(place / "kept", number=5, out=tmp_path / "cold.csv")
    assert len(set(cold.uris)) == 5


def test_after_run_the_loop_goes_on(few, local_ray, tmp_path, capsys):
    from flowerray.cli import main

    out = tmp_path / "r"
    command = ["run", str(few.labelled), str(few.pile), "--out", str(out), "--base", "thumbnail"]
    assert main([*command, "--min-confidence", "0.5"]) == 0
    *_, results, audit, teach = capsys.readouterr().out.splitlines()
    assert "pile_features" in results and audit == f"next: flowerray audit {out}/labels"
    words = teach.partition("flowerray ")[2].split()
    assert words == ["suggest", f"{out}/labels", "--number", "80"]
    assert main([*words[:-1], "4", "--out", str(tmp_path / "look.csv")]) == 0
    again = flowerray.label(
        out / "pile_features", classifier=out / "classifier", out=tmp_path / "again"
    )
    labels = flowerray.run(few.labelled, few.pile, out=out, base="thumbnail").label
    assert (again.labels, again.rejected) == (labels.labels, labels.rejected)
    assert labels.accepted is not None  # as it was decided
    assert labels.computed == 0  # all was there


def test_run_keeps_no_whole_maps_of_the_pile(few, local_ray, tmp_path, capsys):
    from flowerray.cli import main

    command = ["run", str(few.labelled), str(few.pile), "--out", str(tmp_path / "r")]
    assert main([*command, "--base", "thumbnail", "--recipe", "article"]) == 0
    told = capsys.readouterr().out
    assert "suggest" not in told and "pile_features" not in told
    assert not (tmp_path / "r" / "pile_features").exists()


def test_labelling_by_way_of_kept_features_tells_of_both(first, sample, tmp_path):
    place, _ = first
    done = flowerray.label(
        *(sample.pile,),
        classifier=place / "c1",
        out=tmp_path / "l",
        keep_features=tmp_path / "k",
        actors=2,
        shard_size=8,
    )
    assert (done.computed, done.actors) == (34, 2)  # labelling from features has no two
    timing = json.loads((tmp_path / "l" / "run.json").read_text())["timing"]
    assert timing["actors"] == 2 and timing["seconds"] == done.seconds


def test_labels_of_photographs_have_nothing_to_suggest_from(first, sample, tmp_path):
    place, _ = first
    flowerray.label(sample.pile, classifier=place / "c1", out=tmp_path / "l")
    with pytest.raises(FlowerrayError, match="label with --keep-features DIR"):
        flowerray.suggest(tmp_path / "l", out=tmp_path / "look.csv")


def test_an_audit_from_the_draw_to_the_bound(first, truth, tmp_path):
    place, (_, _, stranger) = first
    labels = tmp_path / "l"
    flowerray.label(place / "kept", classifier=place / "c1", out=labels)
    with pytest.raises(FlowerrayError, match=r"nothing of .* is accepted"):
        flowerray.audit(labels)
    flowerray.accept(labels, min_confidence=0.6)
    with pytest.raises(FlowerrayError, match=r"no sample of .* was drawn"):
        flowerray.audit(labels, judged=place / "kept" / "run.json")
    accepted = {r["uri"]: r["label"] for r in rows_of(labels) if r["accepted"]}
    assert flowerray.audit(labels).labels == len(accepted)
    drawn = flowerray.audit(labels, number=len(accepted), out=tmp_path / "audit.csv")
    to_judge = [row["uri"] for row in csv.DictReader((tmp_path / "audit.csv").open())]
    assert drawn.drawn == len(to_judge) == len(accepted)
    with pytest.raises(FlowerrayError, match=f"lacks a label for {len(to_judge)} of the"):
        flowerray.audit(labels, judged=tmp_path / "audit.csv")
    answers = {u: "none" if truth[u] == stranger else truth[u] for u in to_judge}
    judged = said(tmp_path / "judged.csv", answers)
    told = flowerray.audit(labels, judged=judged, min_precision=0.9)
    right = sum(accepted[uri] == answers[uri] for uri in accepted)
    assert told.precision.wrong == len(accepted) - right
    assert told.precision.bound == pytest.approx(right / len(accepted))  # all were judged
    assert told.holds == (told.precision.bound >= 0.9)
    run = json.loads((labels / "run.json").read_text())
    of = run["audited"].pop("of")
    assert run["audited"] == {**vars(told.precision), "bound_confidence": 0.95}
    assert of == accepted_labels(run)
    human = {r["uri"] for r in rows_of(labels) if r["source"] == "human"}
    assert human == set(to_judge)
    with pytest.raises(FlowerrayError, match="nothing to audit"):
        flowerray.audit(labels)
    flowerray.accept(labels, min_confidence=1.0)  # of what is accepted now, the audit says nothing
    assert of != accepted_labels(json.loads((labels / "run.json").read_text()))


def test_the_record_says_how_the_labels_were_made(first, sample, tmp_path):
    place, (*_, stranger) = first
    (tmp_path / "pile").mkdir()
    for file in (sample.labelled / stranger).iterdir():
        for copy in range(4):
            (tmp_path / "pile" / f"{copy} {file.name}").write_bytes(file.read_bytes())
    told = flowerray.label(
        tmp_path / "pile",
        classifier=place / "c1",
        out=tmp_path / "l",
        keep_features=tmp_path / "kept",
        actors=1,
        min_confidence=0.5,
    )
    run = json.loads((tmp_path / "l" / "run.json").read_text())
    assert run["made"]["classifier"] == str(place / "c1")
    assert run["made"]["command"] == (
        f"flowerray label {tmp_path}/pile --classifier {place}/c1 --out {tmp_path}/l "
        f"--keep-features {tmp_path}/kept --min-confidence 0.5"
    )
    found = [Difference(**one) for one in run["shift"]]
    assert "photographs" in told.shifted
    assert [one.name for one in found if one.shifted] == told.shifted
    flowerray.label(tmp_path / "kept", classifier=place / "c1", out=tmp_path / "l")
    assert json.loads((tmp_path / "l" / "run.json").read_text()) == run  # nothing was done


def test_a_few_photographs_without_ray(first, sample, tmp_path):
    from PIL import Image

    place, classes = first
    loaded = flowerray.load(place / "c1", min_confidence=0.6)
    rows = rows_of(place / "labels")
    some = [row["uri"] for row in rows[:3]]
    for row, one in zip(rows, loaded.predict(some), strict=False):
        assert one.uri == row["uri"] and one.label in classes
        assert one.confidence == row["top_k"][0]["probability"]
        assert one.novelty == row["novelty"] and sum(one.probabilities.values()) > 0.999
    data = Path(some[0]).read_bytes()
    told = [loaded.predict(image) for image in (some[0], data, Path(some[0]))]
    assert len({one.confidence for one in told}) == 1
    image = Image.open(some[0])
    array = np.asarray(image.convert("RGB"))
    assert loaded.predict([image, array])[0].label == loaded.predict(array).label
    assert loaded.embed(some).shape == (3, 192) and loaded.embed(some[0]).shape == (192,)
    bad = loaded.predict(["/no/such.jpg", b"text"])
    assert [one.label for one in bad] == [None, None] and all(one.error for one in bad)
    assert loaded.predict([]) == []
    for nonsense in (3, np.zeros((2, 2)), None):
        with pytest.raises(UsageError, match="is no photograph"):
            loaded.predict(nonsense)


def test_the_most_similar_are_the_nearest(first, sample, tmp_path):
    place, _ = first
    kept, uris = place / "kept", [row["uri"] for row in rows_of(place / "labels")]
    ((one,), (other,)) = (flowerray.similar(kept, uri, number=5) for uri in uris[:2])
    loaded = flowerray.load(place / "c1")
    embedded = loaded.embed(uris).astype(np.float32)
    cosines = embedded @ embedded[0] / np.linalg.norm(embedded, axis=1)
    cosines /= np.linalg.norm(embedded[0])
    order = [i for i in np.argsort(-cosines) if i != 0][:5]
    assert [like.uri for like in one.found] == [uris[i] for i in order]
    assert [like.cosine for like in one.found] == pytest.approx(cosines[order], abs=1e-3)
    assert other.uri == uris[1] and uris[1] not in [like.uri for like in other.found]
    copied = tmp_path / "copy.jpg"  # one that the pile lacks is computed
    copied.write_bytes(Path(uris[2]).read_bytes())
    (found,) = flowerray.similar(kept, [copied], number=1)
    assert found.found[0].uri == uris[2] and found.found[0].cosine > 0.99
    with pytest.raises(FlowerrayError, match="missing"):
        flowerray.similar(kept, ["/no/such.jpg"])


def test_what_an_audit_says_sets_the_thresholds_of_the_pile(
    first, truth, tmp_path, monkeypatch, capsys
):
    from flowerray.heads import classifier
    from flowerray.trust import calibration

    monkeypatch.setattr(calibration, "LEAST_EVIDENCE", 5)
    place, (*_, stranger) = first
    labels, kept = tmp_path / "l", place / "kept"
    flowerray.label(kept, classifier=place / "c1", out=labels, min_confidence=0.4)
    flowerray.audit(labels, number=100, out=tmp_path / "audit.csv")
    drawn = [row["uri"] for row in csv.DictReader((tmp_path / "audit.csv").open())]
    answers = {uri: "none" if truth[uri] == stranger else truth[uri] for uri in drawn}
    flowerray.audit(labels, judged=said(tmp_path / "judged.csv", answers))
    taught = {"corrections": labels / "corrections.parquet", "pile_features": kept}
    flowerray.train(place / "features", out=tmp_path / "c", **taught)
    pile = classifier.evidence(str(tmp_path / "c"), of_pile=True)
    assert sorted(pile["uri"].to_pylist()) == sorted(drawn)
    named = dict(zip(pile["uri"].to_pylist(), pile["label"].to_pylist(), strict=True))
    assert named == answers
    assert not set(classifier.evidence(str(tmp_path / "c"))["split"].to_pylist()) & {"pile"}
    flowerray.label(kept, classifier=tmp_path / "c", out=tmp_path / "again", min_precision=0.5)
    pooled = f"by {len(drawn)} audited photographs of this pile"
    assert pooled in capsys.readouterr().err
    run = json.loads((tmp_path / "again" / "run.json").read_text())
    (one,) = {str(one) for one in run["acceptance"]["thresholds"].values()}
    assert "'of_pile': True" in one
    # Of another pile its decisions say nothing.
    some = tmp_path / "other"
    some.mkdir()
    for uri in drawn[:3]:
        (some / Path(uri).name).write_bytes(Path(uri).read_bytes())
    flowerray.label(
        some, classifier=tmp_path / "c", out=tmp_path / "o", keep_features=tmp_path / "k"
    )
    flowerray.accept(tmp_path / "o", min_precision=0.5)
    assert "of this pile" not in capsys.readouterr().err


def test_labelling_anew_keeps_what_people_said_and_no_other_classifiers_evidence(
    first, truth, tmp_path
):
    place, (one, *_) = first
    uri = next(iter(truth))
    flowerray.train(place / "features", out=tmp_path / "c", seed=1)
    options = {"classifier": place / "c1", "out": tmp_path / "l"}
    flowerray.label(place / "kept", **options, corrections=said(tmp_path / "s.csv", {uri: one}))
    options["classifier"] = tmp_path / "c"
    with pytest.raises(FlowerrayError, match="made with other settings"):
        flowerray.label(place / "kept", **options)
    done = flowerray.label(place / "kept", **options, overwrite=True)
    assert done.human == 1
    there = (tmp_path / "l" / "evidence.parquet").read_bytes()
    assert there == (tmp_path / "c" / "evidence.parquet").read_bytes()


def test_a_piles_features_cannot_be_trained_on_and_the_way_is_told(first, truth, tmp_path, capsys):
    place, _ = first
    look = tmp_path / "look.csv"
    assert main(["suggest", str(place / "kept"), "--number", "12", "--out", str(look)]) == 0
    assert f"next: flowerray extract {look} --out taught" in capsys.readouterr().out
    filled = said(look, {uri: truth[uri] for uri in list(truth)[:12]})
    with pytest.raises(FlowerrayError, match="kept has no labelled photographs: it is a pile's"):
        flowerray.train(place / "kept", out=tmp_path / "c", corrections=filled)
    labels = str(place / "labels")
    assert main(["suggest", labels, "--number", "3", "--out", str(tmp_path / "next.csv")]) == 0
    assert f"next: flowerray accept {labels} --corrections" in capsys.readouterr().out
