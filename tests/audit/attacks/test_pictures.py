"""Look-ups give chance where there is nothing to find, and 1 where everything is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from anonlib.audit.attacks.base import Material
from anonlib.audit.attacks.pictures import ON_PICTURES, attack_pictures
from anonlib.audit.attacks.similarity import first_of_each
from anonlib.audit.evidence.evidence import BASELINES, CLEAR, RELEASED, Evidence
from anonlib.audit.findings import Attack, Figure
from tests.support.evidence import NAME, blurred, evidence, looking, units

WORN = blurred(units(60, 14), 5, 0.05, 15)
"""Each person shows a new face, the same on all photos."""


def every(whole: Evidence) -> dict[str, Attack]:
    found = attack_pictures(Material(whole, None, ()))
    named = {f"{attack.name}, {attack.target}": attack for attack in found}
    assert len(named) == len(found)
    return named


def released(vectors: np.ndarray, **changes: Any) -> dict[str, Attack]:
    return every(looking(evidence(**changes), RELEASED, vectors=vectors))


def held(figure: Figure | None) -> tuple[float, float, float]:
    assert figure is not None and figure.value is not None and figure.low is not None and figure.high is not None
    return figure.value, figure.low, figure.high


def test_a_release_of_the_originals_is_as_bad_as_the_originals_beside_every_baseline() -> None:
    found = every(evidence())
    assert {attack.name for attack in found.values()} == set(ON_PICTURES)
    for attack in found.values():
        assert set(attack.baselines) == {"clear", *BASELINES}
        assert attack.identity is not None and attack.context is not None
    for name in ("naive, rank-1", "naive, TAR", "parrot, rank-1", "averaging, rank-1"):
        attack = found[name]
        assert attack.released == attack.baselines["clear"] == attack.baselines["blur"]
        assert held(attack.released)[0] > 0.99 and held(attack.identity)[1] > 0.5
    open_set = found["open set, found at FPIR 0.01"]
    assert held(open_set.released)[0] > 0.95 and held(open_set.identity)[1] > 0.3
    assert (found["naive, rank-1"].released.count, found["averaging, rank-1"].released.count) == (240, 60)
    assert found["naive, rank-1"].released.chance == pytest.approx(1 / 60)


def test_a_release_of_noise_gives_chance() -> None:
    found = released(units(300, 13))
    for name in ("naive, rank-1", "parrot, rank-1", "averaging, rank-1"):
        chance = found[name].released.chance
        _, low, high = held(found[name].released)
        assert chance is not None and low <= chance <= high, name
    assert held(found["naive, TAR"].released)[0] < 0.02
    assert held(found["open set, found at FPIR 0.01"].released)[0] < 0.05


def test_faces_that_all_look_alike_are_guessed_and_exceed_nothing() -> None:
    found = released(np.repeat(units(1, 3), 300, axis=0))
    assert held(found["naive, rank-1"].released)[0] == pytest.approx(1 / 60)
    assert held(found["parrot, rank-1"].released)[0] == pytest.approx(1 / 60)
    value, low, high = held(found["naive, rank-1"].identity)
    assert (value, low) == (0.0, -high) and 0 < high < 0.1


def test_a_pseudonym_for_each_person_hides_the_name_but_links_the_photos() -> None:
    found = released(WORN)
    assert held(found["naive, rank-1"].released)[2] < 0.1
    assert held(found["parrot, rank-1"].released)[0] > 0.99


def test_averaging_leaves_out_the_photo_whose_original_is_the_gallery() -> None:
    first = first_of_each(evidence().subjects)
    only_those = np.where(first[:, None], evidence().clear.vectors[NAME], units(300, 21)).astype(np.float32)
    assert held(released(only_those)["averaging, rank-1"].released)[2] < 0.2


def test_a_surrogate_that_is_its_donor_frames_them() -> None:
    found = released(np.roll(evidence().clear.vectors[NAME], -25, axis=0))
    for name in ("donors, accepted by portraits", "donors, accepted by other photos"):
        assert held(found[name].released)[0] > 0.9
        assert held(found[name].baselines["clear"])[0] < 0.1
        assert found[name].released.count == 300


def test_faces_under_an_ellipse_do_not_flatter_the_others() -> None:
    solid = np.arange(300) % 2 == 0
    clear = evidence().clear.vectors[NAME]
    found = released(np.where(solid[:, None], units(300, 16), clear).astype(np.float32), replaced=~solid)
    naive = found["naive, rank-1"]
    assert held(naive.released)[0] < 0.6 and held(naive.identity)[0] > 0.9
    assert naive.identity is not None
    assert naive.identity.count == int((~solid & ~first_of_each(evidence().subjects)).sum())


def test_the_worst_person_class_and_group_are_worse_than_the_mean() -> None:
    whole = evidence()
    unlucky = whole.subjects == 17
    vectors = np.where(unlucky[:, None], whole.clear.vectors[NAME], units(300, 13)).astype(np.float32)
    whole = looking(whole, CLEAR, female=unlucky.astype(np.float32))
    found = every(looking(whole, RELEASED, vectors=vectors))["naive, rank-1"]
    assert found.worst_person is not None and (found.worst_person.value, found.worst_person.count) == (1.0, 4)
    assert found.worst_class is not None and found.worst_class.count == 20
    assert held(found.worst_class)[0] >= 4 / 20 > held(found.released)[0]
    female, male = (found.groups["gender"][name] for name in ("female", "male"))
    assert (female.value, female.count, male.count) == (1.0, 4, 236)


def test_a_recognizer_that_the_method_used_is_not_held_out() -> None:
    second = looking(evidence(), RELEASED, vectors=WORN)
    looks = {
        kind: replace(look, vectors={NAME: look.vectors[NAME], "faceres": look.vectors[NAME]})
        for kind, look in second.looks.items()
    }
    both = replace(second, looks=looks, donors=second.donors | {"faceres": second.donors[NAME]})
    attacks = attack_pictures(Material(both, None, {"faceres", "dlib-resnet"}))
    assert {(attack.recognizer, attack.held_out) for attack in attacks} == {(NAME, True), ("faceres", False)}
    order = [attack.recognizer for attack in attacks]
    assert order == sorted(order, key=[NAME, "faceres"].index)
    assert attack_pictures(Material(both, None, {"faceres", "dlib-resnet"})) == attacks
