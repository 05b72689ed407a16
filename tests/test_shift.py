"""Whether a pile looks like the evidence: told where it matters, and else seldom."""

from dataclasses import replace

import numpy as np
import pytest

from flowerray.trust import shift
from flowerray.trust.shift import Look, differences

WIDTH = 32
CENTRES = 3 * np.eye(WIDTH)


def look(classes, seed, sharpness=0.0):
    """Photographs about their class' centre, a stranger's being the fourth; all that is known of
    them follows from where they are."""
    chance = np.random.default_rng(seed)
    embedded = CENTRES[classes] + chance.normal(0, 1, (len(classes), WIDTH))
    embedded /= np.linalg.norm(embedded, axis=1, keepdims=True)
    near = embedded[:, :3]
    confidence = np.clip(near.max(axis=1) + sharpness, 0, 1)
    return Look(embedded.astype(np.float32), confidence, 1 - confidence, near.argmax(axis=1))


def of_three(number, seed):
    return np.random.default_rng(seed).integers(0, 3, number)


def warned(found):
    return {one.name for one in found if one.shifted}


def test_halves_of_one_pile_are_seldom_told_apart():
    runs = [
        differences(look(of_three(150, s), s), look(of_three(150, 99 + s), 99 + s), s)
        for s in range(40)
    ]
    assert sum(bool(warned(found)) for found in runs) <= 5  # one in twenty, and two deviations
    assert all(len(found) == 4 and 0 <= one.effect <= 1 for found in runs for one in found)


def test_a_class_that_the_evidence_lacks_is_seen():
    strangers = np.where(np.arange(400) % 3 == 0, 3, of_three(400, 1))
    found = differences(look(of_three(400, 2), 2), look(strangers, 3), 0)
    assert {"photographs", "confidence", "novelty"} <= warned(found)


def test_another_mix_of_classes_is_seen():
    mostly = np.where(np.arange(400) % 2 == 0, 0, of_three(400, 1))
    found = differences(look(of_three(400, 2), 2), look(mostly, 3), 0)
    mix = next(one for one in found if one.name == "class mix")
    assert mix.shifted and 0.2 < mix.effect < 0.5


def test_other_confidences_are_seen_though_the_photographs_are_alike():
    found = differences(look(of_three(400, 2), 2), look(of_three(400, 3), 3, sharpness=0.2), 0)
    assert warned(found) == {"confidence", "novelty"}


def test_a_difference_that_hardly_matters_is_none_however_large_the_pile():
    one, other = look(of_three(50_000, 2), 2), look(of_three(50_000, 3), 3, sharpness=0.003)
    assert not warned(differences(one, other, 0))


def test_few_strangers_are_not_seen_which_an_audit_is_for():
    strangers = np.where(np.arange(400) % 50 == 0, 3, of_three(400, 1))
    assert not warned(differences(look(of_three(400, 2), 2), look(strangers, 3), 0))


def test_the_same_seed_says_the_same():
    one, other = look(of_three(1500, 2), 2), look(of_three(300, 3), 3)
    assert differences(one, other, 7) == differences(one, other, 7)


@pytest.mark.parametrize("number", [0, shift.LEAST - 1])
def test_too_few_photographs_are_not_compared(number):
    assert differences(look(of_three(number, 0), 0), look(of_three(400, 1), 1), 0) == []


def test_one_class_alone_has_no_mix():
    classes = np.zeros(100, int)
    one, other = (replace(look(classes, seed), classes=classes) for seed in (0, 1))
    found = {difference.name: difference for difference in differences(one, other, 0)}
    assert (found["class mix"].p, found["class mix"].effect) == (1.0, 0.0)
