"""Every bound is tested on densities, then on draws alone; each known defect is injected and must be caught."""

import math
import random
from collections.abc import Callable, Iterable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from anonlib.methods.base import Method
from anonlib.privacy.clustering import normalized
from anonlib.privacy.dp import (
    Cost,
    LedgerEntry,
    Mechanism,
    draw,
    draw_id,
    epsilon_of,
    identities,
    overdrawn,
    refusal,
    subset_selection,
    subset_share,
    suspected,
)
from anonlib.privacy.keys import Keyring
from tests.support.methods import method_named

KEYRING = Keyring(b"0123456789abcdef" * 2, "2026-11")
NOISY = ("laplace", "vmf", "purkayastha")
DIMENSIONS = (3, 8, 128, 512)


def units(count: int, size: int, seed: int) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(count, size))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def corner(size: int) -> np.ndarray:
    """The direction in which two unit vectors are furthest apart in L1: 2 sqrt(d)."""
    return np.full(size, 1 / math.sqrt(size), np.float32)


def many(sampler: Callable[[np.random.Generator], np.ndarray], count: int, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return np.array([sampler(generator) for _ in range(count)])


def log_density(mechanism: Mechanism, template: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Log densities (m,) of unit rows z (m, d), up to a constant that depends on mechanism and d alone.

    Exact for all but laplace, whose density on the sphere is an integral over the length that normalizing took away;
    it is computed to about 1e-5.
    """
    centre, rows = template.astype(np.float64), np.asarray(z, np.float64)
    centre /= np.linalg.norm(centre)
    match mechanism.name:
        case "laplace":
            scale = 2 * math.sqrt(len(centre)) / mechanism.parameter
            return np.array([laplace_log_density(centre, row, scale) for row in rows])
        case "vmf":
            return mechanism.parameter * (rows @ centre)
        case "purkayastha":
            # Exact near 0 and pi, where an arc cosine loses half its digits.
            chord, other = (np.linalg.norm(rows + sign * centre, axis=1) for sign in (-1, 1))
            return -mechanism.parameter * 2 * np.arctan2(chord, other)
    return np.zeros(len(rows))


def laplace_log_density(centre: np.ndarray, z: np.ndarray, scale: float) -> float:
    """log of the integral over r > 0 of r^(d-1) exp(-|r z - t|_1 / scale), whose integrand is log-concave."""

    def height(r: np.ndarray) -> np.ndarray:
        distance = np.abs(r[:, None] * z - centre).sum(axis=1)
        return (len(z) - 1) * np.log(r) - distance / scale

    reach = 1 + len(z) * scale
    coarse = np.geomspace(reach * 1e-9, reach * 1e2, 1001)
    heights = height(coarse)
    matters = np.flatnonzero(heights > heights.max() - 40)
    fine = np.linspace(coarse[max(0, matters[0] - 1)], coarse[min(1000, matters[-1] + 1)], 8001)
    heights = height(fine)
    top = heights.max()
    return float(top + math.log(np.exp(heights - top).sum() * (fine[1] - fine[0])))


def shown_epsilon(here: np.ndarray, there: np.ndarray) -> float:
    """The epsilon that two samples of one statistic prove, wrong at most once in 10,000 times.

    The largest log ratio over the ten bins of a histogram and over both orders, each share at its unfavourable end of
    a Clopper-Pearson interval at a level that is shared among all of them.
    """
    edges = np.quantile(np.concatenate([here, there]), np.linspace(0, 1, 11)[1:-1])
    counts = [np.bincount(np.searchsorted(edges, sample), minlength=10) for sample in (here, there)]
    level = 1e-4 / 40
    low = [stats.beta.ppf(level, count, len(here) - count + 1) for count in counts]
    high = [stats.beta.ppf(1 - level, count + 1, len(here) - count) for count in counts]
    return float(max(np.log(np.nan_to_num(low[a]) / np.nan_to_num(high[1 - a], nan=1.0)).max() for a in (0, 1)))


def shown_by(mechanism: Mechanism) -> float:
    """The epsilon shown for the two templates furthest apart, by the cosines of draws to one of them."""
    template = corner(3)

    def statistic(centre: np.ndarray, seed: int) -> np.ndarray:
        return many(lambda generator: draw(mechanism, centre, generator), 12_000, seed) @ template

    with np.errstate(divide="ignore"):
        return shown_epsilon(statistic(template, 1), statistic(-template, 2))


# --- what is promised -------------------------------------------------------------------------------------------


mechanisms, dimensions = st.sampled_from((*NOISY, "uniform")), st.sampled_from(DIMENSIONS)


@settings(deadline=None, max_examples=120)
@given(mechanisms, dimensions, st.floats(0.01, 500), st.integers(0, 10**6), st.floats(0, 1))
def test_no_density_ratio_exceeds_the_metric_or_the_pure_bound(
    name: str, size: int, parameter: float, seed: int, closeness: float
) -> None:
    mechanism = Mechanism(name, 0.0 if name == "uniform" else parameter)  # type: ignore[arg-type]
    one, other, z = units(3, size, seed).astype(float)
    other = closeness * one + (1 - closeness) * other
    other /= np.linalg.norm(other)
    rows = np.stack([z, one, other, -one])
    ratio = np.abs(log_density(mechanism, one, rows) - log_density(mechanism, other, rows))
    cost = epsilon_of(mechanism)
    chord = np.linalg.norm(one - other)
    apart = {"release": 1.0, "Euclidean distance": chord, "radian": 2 * math.asin(min(1.0, chord / 2))}
    slack = 1e-4 + 1e-6 * cost.pure
    assert ratio.max() <= cost.metric * apart[cost.unit] + slack
    assert ratio.max() <= cost.pure + slack


@pytest.mark.parametrize("name", NOISY)
@pytest.mark.parametrize("size", DIMENSIONS)
def test_the_pure_bound_is_met_by_the_two_people_furthest_apart(name: str, size: int) -> None:
    mechanism, template = Mechanism(name, 2.0), corner(size)  # type: ignore[arg-type]
    ratio = log_density(mechanism, template, template[None]) - log_density(mechanism, -template, template[None])
    assert ratio[0] <= epsilon_of(mechanism).pure + 1e-4
    assert ratio[0] >= epsilon_of(mechanism).pure * (0.75 if size == 3 else 0.95)


@pytest.mark.parametrize(
    ("method", "cost"),
    [
        (method_named(name="dp-laplace", epsilon=3.0), Cost(3.0, "release", 3.0)),
        (method_named(name="dp-vmf", kappa=3.0), Cost(3.0, "Euclidean distance", 6.0)),
        (method_named(name="dp-purkayastha", epsilon=3.0), Cost(3.0, "radian", 3 * math.pi)),
        (method_named(name="dp-uniform"), Cost(0.0, "release", 0.0)),
    ],
)
def test_costs_are_those_that_are_claimed(method: Method, cost: Cost) -> None:
    assert method.cost == cost
    claim = method.claim
    assert (claim.epsilon, claim.metric, claim.pure_epsilon) == (cost.metric, cost.unit, cost.pure)


# --- what is drawn ----------------------------------------------------------------------------------------------


def angle_distribution(mechanism: Mechanism, size: int) -> Callable[[np.ndarray], np.ndarray]:
    """The angle's distribution function, by quadrature of its density on a fine grid."""
    angles = np.linspace(0, math.pi, 200_002)[1:-1]
    pull = np.cos(angles) if mechanism.name == "vmf" else -angles
    heights = (size - 2) * np.log(np.sin(angles)) + mechanism.parameter * pull
    mass = np.cumsum(np.exp(heights - heights.max()))
    return lambda angle: np.interp(angle, angles, mass / mass[-1])


@pytest.mark.parametrize("name", ["vmf", "purkayastha"])
@pytest.mark.parametrize(("size", "parameter"), [(3, 0.5), (8, 5.0), (128, 30.0)])
def test_angles_follow_the_density_and_not_one_that_is_twice_as_sharp(name: str, size: int, parameter: float) -> None:
    mechanism = Mechanism(name, parameter)  # type: ignore[arg-type]
    template = units(1, size, 7)[0].astype(float)
    cosine = many(lambda generator: draw(mechanism, template, generator), 3000) @ template
    angles = np.arccos(np.clip(cosine, -1, 1))
    assert stats.kstest(angles, angle_distribution(mechanism, size)).pvalue > 1e-3
    doubled = Mechanism(mechanism.name, 2 * parameter)
    assert stats.kstest(angles, angle_distribution(doubled, size)).pvalue < 1e-6


@pytest.mark.parametrize("name", ["vmf", "purkayastha"])
def test_directions_round_the_template_are_uniform(name: str) -> None:
    template = np.array([0.0, 0.6, 0.8], np.float32)
    z = many(lambda generator: draw(Mechanism(name, 2.0), template, generator), 3000)  # type: ignore[arg-type]
    across = np.array([[1.0, 0.0, 0.0], [0.0, 0.8, -0.6]])
    turn = np.arctan2(*(across @ z.T))
    assert stats.kstest(turn, stats.uniform(-math.pi, 2 * math.pi).cdf).pvalue > 1e-3


@pytest.mark.parametrize("parameter", [0.0, math.nan, math.inf])
def test_a_parameter_that_bounds_nothing_is_refused(parameter: float) -> None:
    with pytest.raises(ValueError, match="positive"):
        Mechanism("vmf", parameter)


@pytest.mark.parametrize("template", [np.zeros(8), np.full(8, 1.0), np.full(8, np.nan)])
def test_a_template_off_the_sphere_is_refused(template: np.ndarray) -> None:
    with pytest.raises(ValueError, match="templates must have length 1; 1 of 1 have not"):
        draw(Mechanism("laplace", 1.0), template, np.random.default_rng(0))


# --- one draw a subject and a release ---------------------------------------------------------------------------


@settings(deadline=None, max_examples=30)
@given(st.sampled_from((*NOISY, "uniform")), st.integers(1, 12), st.randoms(use_true_random=False))
def test_a_draw_depends_on_its_subject_alone_and_not_on_who_else_is_there(
    name: str, count: int, order: random.Random
) -> None:
    mechanism = Mechanism(name, 0.0 if name == "uniform" else 20.0)  # type: ignore[arg-type]
    templates, subjects = units(count, 16, count), [f"subject {number}" for number in range(count)]
    drawn = identities(mechanism, templates, subjects, KEYRING)
    chosen = [number for number in range(count) if order.random() < 0.5]
    order.shuffle(chosen)
    again = identities(mechanism, templates[chosen], [subjects[number] for number in chosen], KEYRING)
    assert (again == drawn[chosen]).all()


@pytest.mark.parametrize("name", [*NOISY, "uniform"])
def test_other_releases_subjects_secrets_and_parameters_share_no_noise(name: str) -> None:
    parameter = 0.0 if name == "uniform" else 1.0
    mechanism, template = Mechanism(name, parameter), units(1, 512, 2)  # type: ignore[arg-type]
    drawn = [
        identities(mechanism, template, [subject], Keyring(secret, release))[0]
        for secret in (b"0123456789abcdef" * 2, b"0123456789abcdeg" * 2)
        for release in ("2026-11", "2026-12")
        for subject in ("a", "b")
    ]
    if name != "uniform":
        drawn.append(identities(Mechanism(mechanism.name, 1.1), template, ["a"], KEYRING)[0])
        moved = template + 1e-4 * units(1, 512, 3)
        drawn.append(identities(mechanism, moved / np.linalg.norm(moved), ["a"], KEYRING)[0])
    cosine = np.array(drawn) @ np.array(drawn).T - np.eye(len(drawn))
    # Chance keeps independent directions of 512 dimensions within 5 / sqrt(512) of a right angle.
    assert np.abs(cosine).max() < 0.23
    assert len({draw_id(z) for z in drawn}) == len(drawn)
    assert draw_id(drawn[0]) == draw_id(identities(mechanism, template, ["a"], KEYRING)[0])


@pytest.mark.parametrize(
    ("mechanism", "drawn"),
    [
        (Mechanism("laplace", 20.0), [0.02181, 0.01379, 0.09371, -0.03643]),
        (Mechanism("vmf", 30.0), [-0.04250, -0.01587, -0.01899, -0.04931]),
        (Mechanism("purkayastha", 8.0), [-0.04596, -0.05732, 0.07000, -0.03657]),
        (Mechanism("uniform"), [-0.09157, -0.07804, -0.00190, -0.01546]),
    ],
)
def test_a_draw_is_what_it_always_was(mechanism: Mechanism, drawn: list[float]) -> None:
    """Else a job that is continued would show another face than its plan says."""
    (z,) = identities(mechanism, corner(128)[None], ["one"], KEYRING)
    assert np.allclose(z[:4], drawn, atol=2e-5)


@pytest.mark.parametrize("subjects", [["a", "a"], ["a"]])
def test_a_subject_is_drawn_once(subjects: list[str]) -> None:
    with pytest.raises(ValueError, match="2 templates need as many different subjects, not 1"):
        identities(Mechanism("vmf", 1.0), units(2, 8, 0), subjects, KEYRING)


# --- the same bounds from draws alone, and the known defects ------------------------------------------------------


@pytest.mark.parametrize(("name", "parameter"), [("laplace", 1.0), ("vmf", 1.0), ("purkayastha", 0.6)])
def test_two_templates_are_told_apart_within_the_bound_and_beyond_it_when_the_parameter_is_doubled(
    name: str, parameter: float
) -> None:
    bound = epsilon_of(Mechanism(name, parameter)).pure  # type: ignore[arg-type]
    assert 0.5 * bound < shown_by(Mechanism(name, parameter)) <= bound  # type: ignore[arg-type]
    assert shown_by(Mechanism(name, 2 * parameter)) > bound  # type: ignore[arg-type]


# --- sums over releases are never too low, and a run that would exceed a budget is refused ---------------------------


draws, costs = st.sampled_from(["z1", "z2", "z3"]), st.sampled_from([0.0, 0.1, 0.5, 1.0, 7.0])
entries = st.lists(st.builds(LedgerEntry, st.sampled_from("abcd"), draws, costs), max_size=12)
Links = dict[str, list[str]]


def linked(pairs: Iterable[str]) -> Links:
    """The suspects of each subject, by pairs."""
    links: Links = {}
    for first, second in pairs:
        links.setdefault(first, []).append(second)
        links.setdefault(second, []).append(first)
    return links


groups = st.sets(st.sampled_from(["ab", "ac", "ad", "bc", "bd", "cd"])).map(linked)


def counted(rows: Iterable[LedgerEntry], subjects: Iterable[str]) -> float:
    """What an attacker has seen who takes all `subjects` for one person: every different draw, at its dearest."""
    dearest: dict[str, float] = {}
    for row in rows:
        if row.subject in subjects:
            dearest[row.draw] = max(row.pure, dearest.get(row.draw, 0.0))
    return sum(dearest.values())


def spent(booked: list[LedgerEntry], subject: str = "a", suspects: Links | None = None) -> float:
    """What a ledger without any budget left says that the account of a subject would have spent."""
    return overdrawn([], [*booked, LedgerEntry(subject, "a draw", 1e-6)], 0.0, suspects or {})[0][subject] - 1e-6


@given(entries, groups, st.sampled_from("abcd"))
def test_an_account_has_its_own_draws_and_those_of_its_direct_suspects(
    booked: list[LedgerEntry], suspects: Links, subject: str
) -> None:
    assert spent(booked, subject, suspects) == pytest.approx(counted(booked, [subject, *suspects.get(subject, ())]))


@given(entries, entries, groups, st.sampled_from([0.0, 0.5, 1.0, 3.0, 10.0]))
def test_a_run_starts_only_if_no_account_that_it_adds_to_ends_over_budget(
    booked: list[LedgerEntry], planned: list[LedgerEntry], suspects: Links, most: float
) -> None:
    """A suspect of a subject of the run is charged too, even if absent from the run."""
    expected = {}
    for subject in "abcd":
        members = [subject, *suspects.get(subject, ())]
        before, after = counted(booked, members), counted(booked + planned, members)
        if after > most + 1e-6 and after > before:
            expected[subject] = after
    assert overdrawn(booked, planned, most, suspects)[0] == pytest.approx(expected)
    assert (refusal(booked, planned, most, suspects) is None) == (not expected)


def test_a_run_over_budget_is_refused_in_a_sentence_of_counts() -> None:
    booked = [LedgerEntry("Ann", "z1", 2.0), LedgerEntry("Bob", "z2", 0.5)]
    planned = [LedgerEntry("Ann", "z3", 2.0), LedgerEntry("Bob", "z4", 2.0)]
    refused = refusal(booked, planned, 3.0, {})
    assert refused is not None and "Ann" not in refused
    assert refused.startswith(
        "1 of the 2 accounts that this run draws on would exceed the budget of epsilon 3 over all releases, the worst "
        "of them, at 4, by 1;"
    )
    assert refusal(booked, planned, 4.0, {}) is None


def test_three_tenths_fill_a_budget_of_point_three() -> None:
    planned = [LedgerEntry("a", f"z{n}", 0.1) for n in range(3)]
    assert refusal([], planned, 0.3, {}) is None
    assert refusal([], [*planned, LedgerEntry("a", "z4", 0.1)], 0.3, {}) is not None


def test_no_budget_outlives_a_method_without_an_epsilon() -> None:
    booked = [LedgerEntry("a", "z1", math.inf)]
    assert "without any bound" in (refusal(booked, [LedgerEntry("a", "z2", 2.0)], 1000.0, {}) or "")
    assert refusal(booked, [LedgerEntry("a", "z1", math.inf), LedgerEntry("a", "z3", 0.0)], 1000.0, {}) is None


@pytest.mark.parametrize("block", [2, 3, 4096])
@pytest.mark.parametrize("threshold", [0.5, 0.9, 1.1])
def test_suspects_are_alike_in_any_two_rows_and_labels_are_believed(
    block: int, threshold: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("anonlib.privacy.dp._BLOCK", block)
    rng = np.random.default_rng(1)
    templates = normalized(rng.normal(size=(40, 3)).astype(np.float32))
    person, labelled = rng.integers(0, 15, size=40), rng.random(40) < 0.5
    expected = {
        (min(person[one], person[other]), max(person[one], person[other]))
        for one in range(40)
        for other in range(40)
        if person[one] != person[other]
        and templates[one] @ templates[other] >= threshold
        and not (labelled[one] and labelled[other])
    }
    found = suspected(templates, person, labelled, threshold)
    assert {(one, other) for one, other in found.tolist()} == expected and len(found) == len(expected)


@pytest.mark.parametrize(("epsilon", "near", "faces"), [(0.01, 1, 2), (2.0, 3, 20), (4.0, 54, 3000), (12.0, 7, 8)])
def test_subset_selection_never_exceeds_its_epsilon(epsilon: float, near: int, faces: int) -> None:
    share = subset_share(epsilon, near, faces)
    factor = share / near / ((1 - share) / (faces - near))
    assert math.exp(epsilon) * (1 - 1e-9) < factor <= math.exp(epsilon)
    assert factor >= 1  # so the inverse ratio is bounded, too


def test_subset_selection_shows_the_near_faces_as_often_as_it_says_and_all_of_them() -> None:
    rng = np.random.default_rng(3)
    faces = normalized(rng.normal(size=(20, 16)).astype(np.float32))
    template = normalized(rng.normal(size=16).astype(np.float32))
    near = set(np.argsort(-(faces @ template), kind="stable")[:4].tolist())
    keyring = Keyring(b"sixteen bytes or more, thirty-two", "subset")
    chosen = [subset_selection(template, faces, 4, 2.0, str(number), keyring) for number in range(4000)]
    share = sum(face in near for face in chosen) / 4000
    expected = float(subset_share(2.0, 4, 20))
    assert abs(share - expected) < 4 * math.sqrt(expected * (1 - expected) / 4000)
    assert set(chosen) == set(range(20))
    assert chosen == [subset_selection(template, faces, 4, 2.0, str(number), keyring) for number in range(4000)]
