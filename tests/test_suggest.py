"""What to look at next, what `none` teaches, and thresholds from what people said of the pile."""

import numpy as np
import pytest

from flowerray.heads.dense import fit_logistic, fit_mlp, predict_dense
from flowerray.heads.folds import held_out
from flowerray.heads.none import answers, class_weights
from flowerray.trust import suggest as suggesting
from flowerray.trust.calibration import pooled_threshold
from flowerray.trust.suggest import doubt, suggest


def pile(counts, width=16, spread=0.1, seed=0):
    """Embeddings of unit length in groups of `counts`, and the group of each."""
    chance = np.random.default_rng(seed)
    groups = np.repeat(np.arange(len(counts)), counts)
    rows = np.eye(width)[groups] + spread * chance.normal(size=(len(groups), width))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    order = chance.permutation(len(rows))
    return rows[order].astype(np.float32), groups[order]


def said(certainty):
    """Of two classes, the first at these probabilities."""
    certainty = np.asarray(certainty, np.float32)
    return np.stack([certainty, 1 - certainty], axis=1)


def test_a_cold_start_looks_at_every_group_however_small():
    rows, groups = pile([500, 500, 20, 20, 20], spread=0.05)
    chosen = suggest(rows, None, 12, 0)
    assert set(groups[chosen]) == {0, 1, 2, 3, 4}
    assert groups[chosen[0]] < 2  # first what stands for most


def test_a_cold_start_goes_on_where_nothing_is_decided():
    rows, groups = pile([300, 300, 100, 100])
    decided = np.flatnonzero(np.isin(groups, (0, 1)))[:40]
    missed = np.concatenate([np.flatnonzero(groups == 0)[:1], np.flatnonzero(groups == 1)[:1]])
    chosen = suggest(rows, None, 2, 0, decided=missed)
    assert set(groups[chosen]) == {2, 3}
    assert not np.isin(suggest(rows, None, 30, 0, decided=decided), decided).any()


def test_typical_photographs_are_chosen_and_not_outliers():
    rows, _ = pile([200, 200])
    centres = np.eye(16)[:2]
    nearness = (rows @ centres.T).max(axis=1)
    assert nearness[suggest(rows, None, 2, 0)].min() > np.quantile(nearness, 0.8)


def test_what_the_head_doubts_is_looked_at_and_all_kinds_of_it():
    rows, groups = pile([400, 400, 60, 60])
    probabilities = said(np.where(groups < 2, 0.999, 0.55))
    chosen = suggest(rows, probabilities, 20, 0)
    assert (groups[chosen] >= 2).mean() > 0.8
    counts = np.bincount(groups[chosen], minlength=4)
    assert counts[2] >= 5 and counts[3] >= 5


def test_the_smallest_margins_alone_would_look_at_one_kind():
    """Where one kind is doubted a little more than another, a margin's choice sees only it."""
    rows, groups = pile([200, 100, 100])
    probabilities = said(np.choose(groups, [0.999, 0.55, 0.60]))
    least = np.argsort(-doubt(probabilities), kind="stable")[:20]
    assert set(groups[least]) == {1}
    assert {1, 2} <= set(groups[suggest(rows, probabilities, 20, 0)])


def test_a_head_that_is_sure_of_its_errors_hides_them():
    """Where the assumption fails: doubt is all that is known of errors."""
    rows, groups = pile([400, 50, 50])
    probabilities = said(np.choose(groups, [0.999, 1.0, 0.6]))  # group 1 is wrong throughout
    assert not np.isin(1, groups[suggest(rows, probabilities, 20, 0)])


@pytest.mark.parametrize("sure", [1.0, 0.5])
def test_a_head_that_is_sure_of_all_or_nothing_looks_everywhere(sure):
    rows, groups = pile([100, 100, 100])
    chosen = suggest(rows, said(np.full(300, sure)), 9, 0)
    assert set(groups[chosen]) == {0, 1, 2}


def test_it_is_repeatable_and_no_decided_row_returns():
    rows, _ = pile([300, 300])
    probabilities = said(np.random.default_rng(1).uniform(0.5, 1, 600))
    first = suggest(rows, probabilities, 50, 7)
    assert first.tolist() == suggest(rows, probabilities, 50, 7).tolist()
    again = suggest(rows, probabilities, 50, 7, decided=first)
    assert len(np.unique(again)) == 50 and not np.isin(again, first).any()


def test_a_pile_of_copies_and_one_that_ends_give_what_there_is():
    same = np.tile(np.eye(8, dtype=np.float32)[:1], (40, 1))
    chosen = suggest(same, None, 10, 0)
    assert len(np.unique(chosen)) == 10
    rows, _ = pile([10, 10])
    left = suggest(rows, None, 50, 0, decided=np.arange(15))
    assert sorted(left) == [15, 16, 17, 18, 19]
    assert len(suggest(rows, None, 0, 0)) == 0
    assert len(suggest(rows[:0], None, 5, 0)) == 0


def test_of_a_large_pile_a_sample_that_follows_doubt_is_clustered(monkeypatch):
    monkeypatch.setattr(suggesting, "SAMPLE", 500)
    monkeypatch.setattr(suggesting, "SAMPLED_FOR_EACH", 2)
    monkeypatch.setattr(suggesting, "MOST_CLUSTERS", 16)
    rows, groups = pile([10_000, 10_000, 100, 100])
    probabilities = said(np.where(groups < 2, 0.9999, 0.6))
    chosen = suggest(rows, probabilities, 40, 0, decided=np.arange(50))
    assert len(np.unique(chosen)) == 40 and chosen.min() >= 50
    assert (groups[chosen] >= 2).mean() > 0.75  # by chance 0.01
    cold = suggest(rows, None, 40, 0, decided=np.arange(50))
    assert len(np.unique(cold)) == 40 and cold.min() >= 50


def test_doubt_is_the_margin_of_the_two_likeliest_in_any_order():
    rows = np.array([[0.1, 0.6, 0.3], [0.0, 0.0, 1.0], [0.4, 0.2, 0.4]], np.float16)
    assert doubt(rows) == pytest.approx([0.7, 0.0, 1.0], abs=1e-3)
    assert doubt(rows[:, :1]) == pytest.approx([0.9, 1.0, 0.6], abs=1e-3)


def test_arrays_of_different_rows_are_refused():
    rows, _ = pile([10])
    with pytest.raises(ValueError, match="10 embeddings, 9 probabilities"):
        suggest(rows, said(np.ones(9)), 1, 0)
    with pytest.raises(ValueError, match="-1 photographs"):
        suggest(rows, None, -1, 0)


def test_choosing_teaches_more_than_chance():
    """Two kinds of one class are rare; what is decided by doubt finds them."""
    rows, groups = pile([600, 600, 40, 40], spread=0.35)
    truth = groups % 2
    errors = {"random": [], "suggest": []}
    for seed in range(5):
        chance = np.random.default_rng(seed)
        start = chance.choice(len(rows), 10, replace=False)
        for way in errors:
            known = start
            for _ in range(3):
                layers = fit_logistic(rows[known], truth[known], np.ones(len(known)), seed)
                left = np.setdiff1d(np.arange(len(rows)), known)
                new = (
                    chance.choice(left, 10, replace=False)
                    if way == "random"
                    else suggest(rows, predict_dense(layers, rows), 10, seed, known)
                )
                known = np.append(known, new)
            layers = fit_logistic(rows[known], truth[known], np.ones(len(known)), seed)
            errors[way].append((predict_dense(layers, rows).argmax(axis=1) != truth).mean())
    assert np.mean(errors["suggest"]) < np.mean(errors["random"])


def test_few_strangers_weigh_half_a_class_and_many_what_they_are():
    labels = np.repeat([0, 1, 2], [100, 300, 10])
    assert class_weights(labels, 3, 2).tolist() == [1, 1, 10]
    many = np.repeat([0, 1, 2], [100, 300, 150])
    assert class_weights(many, 3, 2).tolist() == [1, 1, 1]
    assert class_weights(labels, 3, None).tolist() == [1, 1, 1]
    assert class_weights(labels, 4, 3).tolist() == [1, 1, 1, 1]
    assert class_weights(np.zeros(5, int), 1, 0).tolist() == [1]


def test_none_is_never_a_label_and_lowers_the_confidence():
    probabilities = np.array([[0.7, 0.1, 0.2], [0.2, 0.2, 0.6], [0.1, 0.45, 0.45]])
    labels, confidence = answers(probabilities, 2)
    assert labels.tolist() == [0, -1, 1] and confidence == pytest.approx([0.7, 0.2, 0.45])
    labels, _ = answers(probabilities, None)
    assert labels.tolist() == [0, 2, 1]
    labels, confidence = answers(probabilities[:, 1:2], 0)  # nothing but none
    assert labels.tolist() == [-1, -1, -1]


@pytest.mark.parametrize("fit", [fit_logistic, fit_mlp])
def test_strangers_that_people_told_are_kept_out(fit):
    rows, groups = pile([300, 300, 300])
    known = np.flatnonzero(groups < 2)[:200]
    strangers = np.flatnonzero(groups == 2)
    taught = np.concatenate([known, strangers[:8]])
    weights = class_weights(groups[taught], 3, 2)[groups[taught]]
    layers = fit(rows[taught], groups[taught], weights, 0)
    labels, confidence = answers(predict_dense(layers, rows), 2)
    assert (labels[strangers[8:]] == -1).mean() > 0.9
    without = fit(rows[known], groups[known], np.ones(len(known)), 0)
    before = predict_dense(without, rows[strangers[8:]]).max(axis=1)
    assert confidence[strangers[8:]].mean() < before.mean()


def test_held_out_answers_are_of_heads_that_did_not_know():
    """Labels that are pure chance: who knew them would be right."""
    chance = np.random.default_rng(0)
    rows = chance.normal(size=(300, 200)).astype(np.float32)
    labels = chance.integers(0, 2, 300)
    held = np.arange(200, 300)
    found = held_out(fit_logistic, rows, labels, np.ones(300), held, 0)
    assert found.shape == (100, 2) and found.sum(axis=1) == pytest.approx(np.ones(100), abs=1e-5)
    assert (found.argmax(axis=1) == labels[held]).mean() < 0.65
    layers = fit_logistic(rows, labels, np.ones(300), 0)
    assert (predict_dense(layers, rows[held]).argmax(axis=1) == labels[held]).mean() > 0.85


def test_copies_are_held_out_together():
    chance = np.random.default_rng(0)
    once = chance.normal(size=(100, 200)).astype(np.float32)
    rows, labels = np.concatenate([once, once]), np.tile(chance.integers(0, 2, 100), 2)
    held = np.arange(100, 200)  # each has a copy among the labelled
    apart = held_out(fit_logistic, rows, labels, np.ones(200), held, 0)
    together = held_out(fit_logistic, rows, labels, np.ones(200), held, 0, np.tile(held, 2))
    assert (apart.argmax(axis=1) == labels[held]).mean() > 0.95
    assert (together.argmax(axis=1) == labels[held]).mean() < 0.7


def test_a_class_of_one_held_out_photograph_has_no_probability():
    rows, groups = pile([50, 50, 1])
    alone = np.flatnonzero(groups == 2)
    found = held_out(fit_logistic, rows, groups, np.ones(101), alone, 0)
    assert found.shape == (1, 3) and found[0, 2] == 0
    only = held_out(fit_logistic, rows[:5], np.zeros(5, int), np.ones(5), np.arange(2), 0)
    assert only.tolist() == [[1.0], [1.0]]


def judged(count, seed, slope=0.3):
    """Confidences, and whether right: more often the surer, surely at 1."""
    chance = np.random.default_rng(seed)
    confidence = chance.uniform(0.5, 1, count)
    return confidence, chance.uniform(size=count) < 1 - slope * (1 - confidence)


@pytest.mark.parametrize("bound, faultless", [(0.95, 99), (0.9, 76), (0.8, 53)])
def test_a_threshold_takes_as_many_judgements_as_is_said(bound, faultless):
    for count, enough in ((faultless - 1, False), (faultless, True)):
        found = pooled_threshold(np.linspace(0.5, 1, count), np.ones(count, bool), 0.97, bound)
        assert (found["threshold"] is not None) == enough


@pytest.mark.parametrize("bound", [0.95, 0.8])
def test_the_promise_of_a_pooled_threshold_holds_as_often_as_asked(bound):
    kept, some = 0, 0
    for seed in range(200):
        found = pooled_threshold(*judged(300, seed), 0.95, bound)["threshold"]
        some += found is not None
        # Above t the true precision is 1 - slope * (1 - t) / 2.
        kept += found is None or 1 - 0.3 * (1 - found) / 2 >= 0.95
    assert kept >= 200 * bound - 3 * np.sqrt(200 * bound * (1 - bound))
    assert some >= 40


def test_evidence_chosen_by_doubt_would_refuse_and_from_the_sure_alone_promise_too_much():
    """Where the assumption fails: the judged must be drawn evenly from what is accepted."""
    confidence, right = judged(4000, 0, slope=0.6)
    doubted = np.argsort(confidence)[:200]
    assert pooled_threshold(confidence[doubted], right[doubted], 0.97, 0.8)["threshold"] is None
    easy = np.flatnonzero(right)[:200]  # only those that nobody could mistake
    found = pooled_threshold(confidence[easy], right[easy], 0.9, 0.95)["threshold"]
    assert right[confidence >= found].mean() < 0.9


def test_judged_of_equal_confidence_are_accepted_together():
    right = np.arange(400) < 370
    assert pooled_threshold(np.ones(400), right, 0.97)["threshold"] is None
    found = pooled_threshold(np.ones(400), right, 0.85)
    assert (found["threshold"], found["photographs"]) == (1, 400)
    none = pooled_threshold(np.zeros(0), np.zeros(0, bool), 0.97)
    assert none == {"threshold": None, "precision_bound": None, "photographs": 0}
