import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anonlib.privacy.gallery import SAME_PERSON_ANGLE, PublicIdentities, donor, mixture, sample, surrogate
from anonlib.privacy.keys import Keyring
from anonlib.privacy.knn import cosine_beyond

KEYRING = Keyring(b"0123456789abcdef" * 2, "2026-11")
SIZE = 32
WOMAN, MAN = ("female", "adult"), ("male", "adult")


def units(count: int, seed: int, centre: float = 0.0) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(centre, size=(count, SIZE))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def names(count: int) -> list[str]:
    return [f"subject {number}" for number in range(count)]


def degrees(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.degrees(np.arccos(np.clip((one.astype(np.float64) * other).sum(axis=-1), -1, 1)))


GALLERY = PublicIdentities(units(150, 0))


# --- surrogate ------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 6), st.integers(0, 10**6), st.sampled_from([1.0, 60.0, 75.0, 90.0]))
def test_a_mixture_keeps_its_angle_and_is_of_k_different_identities(k: int, seed: int, own_angle: float) -> None:
    templates = units(12, seed)
    chosen = surrogate(templates, GALLERY, k, own_angle=own_angle)
    assert (degrees(mixture(GALLERY, chosen), templates) >= own_angle).all()
    assert (degrees(GALLERY.vectors[chosen], templates[:, None]) >= SAME_PERSON_ANGLE).all()
    assert all(len(set(rows)) == k for rows in chosen.tolist())


def test_a_person_who_is_in_the_gallery_is_passed_over() -> None:
    person = GALLERY.vectors[7:8]
    assert 7 not in surrogate(person, GALLERY, 5, own_angle=1)
    assert 7 not in donor(person, GALLERY, ["a"], KEYRING, 30)


@settings(deadline=None, max_examples=30)
@given(st.integers(2, 30), st.randoms(use_true_random=False))
def test_a_choice_does_not_depend_on_who_else_is_there(count: int, order: random.Random) -> None:
    templates, shuffled = units(count, count), list(range(count))
    order.shuffle(shuffled)
    shuffled = shuffled[: 1 + count // 2]
    assert (surrogate(templates, GALLERY, 3)[shuffled] == surrogate(templates[shuffled], GALLERY, 3)).all()
    drawn = donor(templates, GALLERY, names(count), KEYRING, 75)
    again = donor(templates[shuffled], GALLERY, [names(count)[n] for n in shuffled], KEYRING, 75)
    assert (drawn[shuffled] == again).all()


# --- donor ----------------------------------------------------------------------------------------------------


def test_a_donor_is_far_from_its_subject_and_drawn_evenly_among_all_who_are() -> None:
    gallery = PublicIdentities(GALLERY.vectors[:12])
    template = units(1, 5)
    templates, count = np.repeat(template, 6000, axis=0), 6000
    rows = donor(templates, gallery, names(count), KEYRING, 85)
    far = np.flatnonzero(degrees(gallery.vectors, template) >= 85)
    assert set(rows) == set(far)
    shares = np.bincount(rows, minlength=12)[far] / count
    assert np.abs(shares - 1 / len(far)).max() < 5 * math.sqrt(1 / len(far) / count)


def test_a_donor_comes_from_the_release_and_the_subject() -> None:
    templates = np.repeat(units(1, 6), 40, axis=0)
    rows = donor(templates, GALLERY, names(40), KEYRING, 75)
    assert (rows == donor(templates, GALLERY, names(40), KEYRING, 75)).all()
    assert (rows != donor(templates, GALLERY, names(40), Keyring(b"0123456789abcdef" * 2, "2026-12"), 75)).mean() > 0.8
    assert len(set(rows)) > 20


def test_stand_ins_are_of_the_subjects_stratum_and_coarser_only_where_it_has_too_few() -> None:
    strata = [WOMAN] * 70 + [MAN] * 75 + [("female", "child")] * 2 + [("other", "adult")] * 3
    gallery = PublicIdentities(GALLERY.vectors, strata)
    subjects = [WOMAN, MAN, ("female", "child"), ("other", "child")] * 5
    mixed = surrogate(units(20, 8), gallery, 4, strata=subjects)
    lent = donor(units(20, 8), gallery, names(20), KEYRING, 40, subjects)[:, None]
    for chosen, shared in ((mixed, (2, 2, 1, 0)), (lent, (2, 2, 2, 1))):
        for stratum, rows, level in zip(subjects, chosen, shared * 5, strict=True):
            assert all(strata[row][:level] == stratum[:level] for row in rows)


def test_a_gallery_with_nobody_far_enough_is_refused_with_counts() -> None:
    templates = units(3, 9)
    with pytest.raises(ValueError, match=r"gallery of 3 does not have 5 identities whose mixture .* for 3 of 3 su"):
        surrogate(templates, PublicIdentities(GALLERY.vectors[:3]), 5)
    with pytest.raises(ValueError, match="not have an identity 170 degrees away for 3 of 3"):
        donor(templates, GALLERY, names(3), KEYRING, 170)
    with pytest.raises(ValueError, match="not 1"):
        donor(templates[:2], GALLERY, ["a", "a"], KEYRING, 75)
    with pytest.raises(ValueError, match="templates must have length 1"):
        surrogate(2 * templates, GALLERY, 2)
    assert surrogate(templates[:0], GALLERY, 2).shape == (0, 2)


# --- sampling --------------------------------------------------------------------------------------------------------


BANK = units(300, 1, centre=0.2)


def sampled(templates: np.ndarray, own: float = 75, other: float = 35, bank: np.ndarray = BANK) -> list[np.ndarray]:
    return sample(bank, templates, names(len(templates)), KEYRING, own_angle=own, other_angle=other)


def breaches(found: list[np.ndarray], templates: np.ndarray, own_angle: float, other_angle: float) -> int:
    """How many offered identities are nearer to somebody than they may be, in 64 bits and without any tolerance."""
    return sum(
        int((degrees(points[:, None], templates) < other_angle).any(axis=1).sum())
        + int((degrees(points, template) < own_angle).sum())
        for points, template in zip(found, templates, strict=True)
    )


own_angles, other_angles = st.sampled_from([50.0, 75.0, 90.0]), st.sampled_from([20.0, 35.0, 45.0])


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 60), st.integers(0, 10**6), own_angles, other_angles)
def test_no_identity_is_within_its_angle_of_anyone(count: int, seed: int, own_angle: float, other_angle: float) -> None:
    templates = units(count, seed)
    found = sampled(templates, own_angle, other_angle)
    assert breaches(found, templates, own_angle, other_angle) == 0
    for points in found:
        assert len(points) >= 1
        assert np.allclose(np.linalg.norm(points, axis=1), 1, atol=1e-6)


@settings(deadline=None, max_examples=20)
@given(st.integers(2, 40), st.randoms(use_true_random=False))
def test_an_identity_depends_on_its_key_and_on_nobodys_place_in_the_list(count: int, order: random.Random) -> None:
    templates, subjects, shuffled = units(count, count), names(count), list(range(count))
    order.shuffle(shuffled)
    found, ids = sampled(templates), [subjects[number] for number in shuffled]
    again = sample(BANK, templates[shuffled], ids, KEYRING, own_angle=75, other_angle=35)
    for place, number in enumerate(shuffled):
        assert (again[place] == found[number]).all()


# --- the unit sphere -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("angle", [1.0, 45.0, 75.0, 120.0])
def test_what_passes_in_32_bits_is_as_far_in_64(angle: float) -> None:
    rng = np.random.default_rng(0)
    one, across = rng.normal(size=(2, 2000, 128))
    one /= np.linalg.norm(one, axis=1, keepdims=True)
    across -= (across * one).sum(axis=1, keepdims=True) * one
    across /= np.linalg.norm(across, axis=1, keepdims=True)
    turn = np.radians(angle + rng.normal(scale=1e-5, size=(2000, 1)))
    other = np.cos(turn) * one + np.sin(turn) * across
    assert ((one.astype(np.float32) * other.astype(np.float32)).sum(axis=1) > cosine_beyond(angle)).any()
    passed = np.einsum("nd,nd->n", one, other) <= cosine_beyond(angle) + 5e-6
    assert (np.degrees(np.arccos(np.einsum("nd,nd->n", one, other)[passed])) >= angle).all()
    assert math.degrees(math.acos(cosine_beyond(angle))) - angle < 0.05
