"""An audit's bound: exact, for any pile, and honest where little was judged."""

import numpy as np
import pytest
from scipy.stats import beta

from flowerray.errors import FlowerrayError
from flowerray.trust import audit


def pile(labels=3000, classes=3, seed=0):
    chance = np.random.default_rng(seed)
    return chance.integers(0, classes, labels), chance.random(labels).astype(np.float32)


def test_a_sample_is_the_same_for_the_same_seed_and_has_no_label_twice():
    classes, confidence = pile()
    drawn = [audit.draw(classes, confidence, 300, seed).drawn for seed in (1, 1, 2)]
    assert np.array_equal(drawn[0], drawn[1]) and not np.array_equal(drawn[0], drawn[2])
    assert len(np.unique(drawn[0])) == len(drawn[0]) == 300


@pytest.mark.parametrize("labels", [1, 7, 299, 300, 301, 433, 713, 1000, 12345])
def test_no_more_is_drawn_than_asked_for_and_little_less(labels):
    drawn = len(audit.draw(*pile(labels), 300, 0).drawn)
    assert 0.95 * min(labels, 300) <= drawn <= 300


def test_each_class_and_confidence_has_its_share():
    classes, confidence = pile(30_000)
    drawn = audit.draw(classes, confidence, 300, 0).drawn
    for index in range(3):
        mine = drawn[classes[drawn] == index]
        assert abs(len(mine) - 300 * (classes == index).mean()) <= 2
        assert abs((confidence[mine] >= 0.5).sum() - len(mine) / 2) <= 4


def test_every_label_has_the_same_chance():
    classes, confidence = pile(100)
    samples = [audit.draw(classes, confidence, 30, seed) for seed in range(2000)]
    counts = sum(np.bincount(sample.drawn, minlength=100) for sample in samples)
    assert np.abs(counts / 2000 - samples[0].rate).max() < 0.05


def test_what_people_had_decided_is_left_out_of_everything():
    classes, confidence = pile(1000)
    decided = np.arange(1000) < 400
    sample = audit.draw(classes, confidence, 100, 0, decided)
    found = audit.overall(sample, np.ones(len(sample.drawn), bool))
    assert sample.drawn.min() >= 400 and found.labels == 600


@pytest.mark.parametrize("decided", [None, np.ones(5, bool)])
def test_an_audit_of_nothing_says_so(decided):
    classes = np.zeros(0 if decided is None else 5, int)
    with pytest.raises(FlowerrayError, match="nothing to audit"):
        audit.draw(classes, classes.astype(float), 100, 0, decided)


def test_where_all_are_judged_the_bound_is_what_was_counted():
    classes, confidence = pile(250)
    sample = audit.draw(classes, confidence, 300, 0)
    right = np.arange(250) >= 20
    found = audit.overall(sample, right[sample.drawn])
    assert (found.judged, found.wrong, found.wrong_at_most) == (250, 20, 20)
    assert found.bound == found.estimate == pytest.approx(0.92)


@pytest.mark.parametrize("wrong", [0, 1, 9, 60, 299])
def test_in_a_large_pile_the_bound_is_that_of_clopper_and_pearson(wrong):
    sample = audit.draw(np.zeros(300_000, int), np.zeros(300_000), 300, 0)
    found = audit.overall(sample, np.arange(300) >= wrong)
    exact = beta.ppf(0.05, 300 - wrong, wrong + 1)
    # Of one right alone Hoeffding's inequality says nothing: the only right one is known.
    assert found.bound == pytest.approx(exact if wrong < 299 else 0, abs=1e-4)


@pytest.mark.parametrize("labels", [400, 1500, 20_000])
@pytest.mark.parametrize("where", ["anywhere", "the least sure", "one class", "every tenth"])
def test_the_bound_holds_wherever_the_wrong_ones_are(labels, where):
    classes, confidence = pile(labels)
    chance, many = np.random.default_rng(1), labels // 20
    order = {
        "anywhere": chance.permutation(labels),
        "the least sure": np.argsort(confidence),
        "one class": chance.permutation(np.flatnonzero(classes == 1)),
        "every tenth": np.lexsort((-confidence, classes))[::10],
    }[where]
    right = np.ones(labels, bool)
    right[order[:many]] = False
    held = 0
    for seed in range(200):
        sample = audit.draw(classes, confidence, 150, seed)
        held += audit.overall(sample, right[sample.drawn]).wrong_at_most >= (~right).sum()
    assert held >= 184  # 190 of 200, less two deviations


def test_without_a_random_sample_nothing_holds():
    """Judging the surest and taking them for all, as one must not."""
    classes, confidence = pile(20_000)
    right = confidence > 0.1
    sample = audit.draw(classes, confidence, 300, 0)
    surest = np.argsort(-confidence)[: len(sample.drawn)]
    assert audit.overall(sample, right[surest]).bound > right.mean()
    assert audit.overall(sample, right[sample.drawn]).bound <= right.mean()


def test_a_class_of_which_nobody_judged_one_promises_nothing():
    classes, confidence = pile(10_000)
    classes[:4] = 3
    sample = audit.draw(classes, confidence, 100, 1)
    assert not (classes[sample.drawn] == 3).any()
    found = audit.by_class(sample, np.ones(len(sample.drawn), bool), 5)
    assert [one.labels for one in found[3:]] == [4, 0]
    assert all(one.estimate is None and one.bound == 0 for one in found[3:])
    assert all(0.85 < one.bound < 1 for one in found[:3])
    assert sum(one.judged for one in found) == len(sample.drawn)


def test_bounds_of_classes_hold_though_slices_have_two():
    classes, confidence = pile(2000, classes=7)
    right = np.random.default_rng(3).random(2000) < np.linspace(0.7, 1, 7)[classes]
    wrong = np.bincount(classes, ~right)
    held = np.zeros(7)
    for seed in range(200):
        sample = audit.draw(classes, confidence, 200, seed)
        found = audit.by_class(sample, right[sample.drawn], 7)
        held += [one.wrong_at_most >= many for one, many in zip(found, wrong, strict=True)]
    assert held.min() >= 184


@pytest.mark.parametrize("pooled", [True, False])
def test_thresholds_fail_seldom_and_find_where_precision_ends(pooled):
    classes, confidence = pile(20_000, classes=2)
    right = (confidence > 0.4) | (np.arange(20_000) % 2 == 0)
    failed = found = 0
    for seed in range(60):
        sample = audit.draw(classes, confidence, 600, seed)
        told = audit.thresholds(sample, right[sample.drawn], ["a", "b"], 0.95, pooled=pooled)
        least = [told[name]["threshold"] for name in ("a", "b")]
        assert None not in least and min(told[n]["precision_bound"] for n in ("a", "b")) >= 0.95
        accepted = (classes == 0) & (confidence >= least[0])
        assert told["a"]["photographs"] == accepted.sum()
        if pooled:
            assert least[0] == least[1]
            accepted = confidence >= least[0]
        failed += right[accepted].mean() < 0.95
        found += least[0] < 0.45
    assert failed <= 7 and found >= 50


def test_there_is_no_threshold_where_none_will_do():
    classes, confidence = pile(1000)
    sample = audit.draw(classes, confidence, 300, 0)
    none = {"threshold": None, "precision_bound": None, "photographs": 0}
    told = audit.thresholds(sample, np.zeros(len(sample.drawn), bool), ["a", "b", "c"], 0.9)
    assert told == dict.fromkeys("abc", none)
    few = audit.draw(*pile(10_000), 20, 0)
    assert audit.thresholds(few, np.ones(20, bool), ["a", "b", "c"], 0.97)["a"] == none


def test_labels_of_one_confidence_are_accepted_together():
    classes, confidence = pile(1000)
    confidence = np.where(confidence > 0.5, np.float32(0.9), np.float32(0.6))
    sample = audit.draw(classes, confidence, 300, 0)
    told = audit.thresholds(sample, np.ones(len(sample.drawn), bool), ["a", "b", "c"], 0.9)
    assert {one["threshold"] for one in told.values()} == {float(np.float32(0.6))}
    assert sum(one["photographs"] for one in told.values()) == 1000


@pytest.mark.parametrize("labels, wanted, expected", [(10**6, 0.97, 0.99), (700, 0.95, 0.98)])
def test_so_many_as_are_said_to_be_needed_are_enough(labels, wanted, expected):
    number = audit.needed(labels, wanted, expected)
    sample = audit.draw(np.zeros(labels, int), np.zeros(labels), number, 0)
    right = np.arange(len(sample.drawn)) >= np.ceil(len(sample.drawn) * (1 - expected))
    assert audit.overall(sample, right).bound >= wanted
    fewer = audit.draw(np.zeros(labels, int), np.zeros(labels), number // 2, 0)
    right = np.arange(len(fewer.drawn)) >= np.ceil(len(fewer.drawn) * (1 - expected))
    assert audit.overall(fewer, right).bound < wanted


def test_no_number_makes_labels_more_precise_than_they_are():
    assert audit.needed(10_000, 0.98, 0.97) is None
    assert audit.needed(100, 1.0, 1.0) == 100
