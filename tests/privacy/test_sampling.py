import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anonlib.privacy.keys import Keyring
from anonlib.privacy.sampling import fit_prior, sample

KEYRING = Keyring(b"0123456789abcdef" * 2, "2026-11")
SIZE = 32


def units(count: int, seed: int, centre: float = 0.0) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(centre, size=(count, SIZE))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


BANK = units(300, 1, centre=0.2)
PRIOR = fit_prior(BANK)


def names(count: int) -> list[str]:
    return [f"subject {number}" for number in range(count)]


def sampled(templates: np.ndarray, own_angle: float = 75, other_angle: float = 35, **options: int) -> list[np.ndarray]:
    return sample(
        PRIOR, BANK, templates, names(len(templates)), KEYRING,
        own_angle=own_angle, other_angle=other_angle, **options,
    )  # fmt: skip


def degrees(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.degrees(np.arccos(np.clip(one.astype(np.float64) @ other.astype(np.float64).T, -1, 1)))


def breaches(found: list[np.ndarray], templates: np.ndarray, own_angle: float, other_angle: float) -> int:
    """How many offered identities are nearer to somebody than they may be, in 64 bits and without any tolerance."""
    everybody = np.concatenate([templates, BANK])
    return sum(
        int((degrees(points, everybody) < other_angle).any(axis=1).sum())
        + int((degrees(points, template[None]) < own_angle).sum())
        for points, template in zip(found, templates, strict=True)
    )


@settings(deadline=None, max_examples=40)
@given(
    st.integers(1, 60), st.integers(0, 10**6), st.sampled_from([50.0, 75.0, 90.0]), st.sampled_from([20.0, 35.0, 45.0])
)
def test_no_identity_is_within_its_angle_of_anyone(count: int, seed: int, own_angle: float, other_angle: float) -> None:
    templates = units(count, seed)
    found = sampled(templates, own_angle, other_angle)
    assert breaches(found, templates, own_angle, other_angle) == 0
    for points in found:
        assert len(points) >= 1
        assert np.allclose(np.linalg.norm(points, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("forgotten", ["own", "subjects", "bank"])
def test_a_copy_that_forgets_one_of_the_three_distances_is_caught(forgotten: str) -> None:
    templates = units(200, 3, centre=0.2)
    assert breaches(sampled(templates, 75, 50), templates, 75, 50) == 0
    careless = sample(
        PRIOR,
        -BANK if forgotten == "bank" else BANK,
        -templates if forgotten == "subjects" else templates,
        names(200),
        KEYRING,
        own_angle=0.1 if forgotten == "own" else 75,
        other_angle=50,
        neighbours=1,
    )
    assert breaches(careless, templates, 75, 50) > 0


@settings(deadline=None, max_examples=20)
@given(st.integers(2, 40), st.randoms(use_true_random=False))
def test_an_identity_depends_on_its_key_and_on_nobodys_place_in_the_list(count: int, order: random.Random) -> None:
    templates, subjects = units(count, count), names(count)
    shuffled = list(range(count))
    order.shuffle(shuffled)
    found = sampled(templates)
    again = sample(
        PRIOR, BANK, templates[shuffled], [subjects[n] for n in shuffled], KEYRING, own_angle=75, other_angle=35
    )
    for place, number in enumerate(shuffled):
        assert (again[place] == found[number]).all()


def test_another_release_or_subject_gets_another_identity() -> None:
    templates = np.repeat(units(1, 4), 2, axis=0)
    first = sampled(templates)
    second = sample(
        PRIOR, BANK, templates, names(2), Keyring(b"0123456789abcdef" * 2, "2026-12"), own_angle=75, other_angle=35
    )
    points = np.stack([points[0] for points in first + second])
    assert (np.abs(points @ points.T - np.eye(4)) < 0.9).all()


def test_of_those_that_fit_the_most_natural_come_first() -> None:
    found = sampled(units(30, 5), wanted=4)
    natural = [np.sort(points @ BANK.T, axis=1)[:, -5:].mean(axis=1) for points in found]
    assert all((np.diff(score) <= 1e-6).all() for score in natural)
    blind = np.sort(PRIOR.draw(np.random.default_rng(0), 500) @ BANK.T, axis=1)[:, -5:].mean(axis=1)
    assert np.mean([score[0] for score in natural]) > blind.mean() + blind.std()


def test_all_wanted_retries_are_found_over_several_rounds() -> None:
    found = sampled(units(5, 6), own_angle=105, wanted=6, candidates=4096)
    assert all(len(points) == 6 for points in found)


def test_a_look_at_the_nearest_clusters_first_changes_no_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    templates = units(1200, 7, centre=0.2)
    thorough = sampled(templates, other_angle=45)
    monkeypatch.setattr("anonlib.privacy.sampling._GLANCE_FROM", 1000)
    monkeypatch.setattr("anonlib.privacy.sampling._PEOPLE", 100)
    for points, other in zip(thorough, sampled(templates, other_angle=45), strict=True):
        assert (points == other).all()
    assert breaches(thorough, templates, 75, 45) == 0


def test_where_no_room_is_left_the_sentence_says_which_angles_took_it() -> None:
    with pytest.raises(
        ValueError, match=r"^20 of 20 subjects found no .* among 64 candidates: .*own_angle of 170 .*20"
    ):
        sampled(units(20, 8), own_angle=170, candidates=64)


def test_the_prior_has_the_banks_mean_and_covariance() -> None:
    noise = np.random.default_rng(0).normal(size=(200_000, SIZE)) @ PRIOR.factor.T
    assert np.allclose(PRIOR.mean, BANK.mean(axis=0), atol=1e-6)
    assert np.allclose(np.cov(noise.T), np.cov(BANK.T), atol=1e-3)
    points = PRIOR.draw(np.random.default_rng(1), 50)
    assert points.dtype == np.float32
    assert np.allclose(np.linalg.norm(points, axis=1), 1, atol=1e-6)


def test_a_bank_that_is_too_small_is_refused() -> None:
    with pytest.raises(ValueError, match="1 public faces"):
        fit_prior(BANK[:1])
    with pytest.raises(ValueError, match="has 3 faces; 5 nearest"):
        sample(PRIOR, BANK[:3], units(2, 0), names(2), KEYRING, own_angle=75, other_angle=35)


def test_a_subject_is_sampled_once() -> None:
    with pytest.raises(ValueError, match="2 templates need as many different subjects, not 1"):
        sample(PRIOR, BANK, units(2, 0), ["a", "a"], KEYRING, own_angle=75, other_angle=35)


def test_vectors_off_the_sphere_are_refused() -> None:
    with pytest.raises(ValueError, match="templates must have length 1; 2 of 2 have not, one has 2"):
        sampled(2 * units(2, 0))
    with pytest.raises(ValueError, match="the bank's vectors must have length 1; 1 of 6"):
        sample(
            PRIOR,
            np.concatenate([BANK[:5], 0 * BANK[:1]]),
            units(2, 0),
            names(2),
            KEYRING,
            own_angle=75,
            other_angle=35,
        )


def test_an_empty_dataset_needs_no_identity() -> None:
    assert sampled(units(0, 0)) == []
