"""Figures as they are said."""

from __future__ import annotations

import pytest

from anonlib.audit.findings import ClaimSection, Figure
from anonlib.audit.report import formatting, palette

FIGURE = Figure(value=0.123, low=0.101, high=0.14, count=3214)


@pytest.mark.parametrize(
    ("value", "text"), [(0.5, "50.0 %"), (0.00238, "0.2 %"), (0.0002381, "0.024 %"), (0.0, "0.0 %"), (1.0, "100.0 %")]
)
def test_shares(value: float, text: str) -> None:
    assert formatting.share(value).replace(formatting.NBSP, " ") == text


@pytest.mark.parametrize(("value", "text"), [(5, "5"), (5138.0, "5,138"), (0.0838, "0.0838"), (1234.5, "1,234")])
def test_numbers(value: float, text: str) -> None:
    assert formatting.number(value) == text


def test_a_figure_is_said_with_interval_and_n() -> None:
    assert formatting.said(FIGURE).replace(formatting.NBSP, " ") == "12.3 % (10.1 to 14.0 %, n = 3,214)"
    apart = Figure(value=0.041, low=0.039, high=0.043, count=9)
    assert formatting.said(apart, "px").replace(formatting.NBSP, " ") == "0.041 px (0.039 to 0.043 px, n = 9)"
    assert formatting.said(Figure(value=None, low=None, high=None, count=0)) == formatting.said(None) == "not measured"
    assert (
        formatting.said(Figure(value=0.5, low=None, high=None, count=2)).replace(formatting.NBSP, " ")
        == "50.0 % (n = 2)"
    )


def test_differences_are_points_with_their_sign() -> None:
    less = Figure(value=-0.001, low=-0.01, high=0.008, count=9)
    assert formatting.points(less).replace(formatting.NBSP, " ") == "\u22120.1 points (\u22121.0 to +0.8, n = 9)"


def test_nothing_has_no_minus() -> None:
    assert [formatting.signed(value) for value in (-0.0001, 0.0, 0.0001, -0.001)] == [
        "+0.0",
        "+0.0",
        "+0.0",
        "\u22120.1",
    ]


def test_counts_and_lists() -> None:
    assert [formatting.counted(number, "face") for number in (0, 1, 1200)] == ["no face", "1 face", "1,200 faces"]
    assert [formatting.listed(parts) for parts in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == [
        "",
        "a",
        "a and b",
        "a, b and c",
    ]
    assert formatting.of(0, 0) == "0 of 0"


@pytest.mark.parametrize(
    ("unit", "text"),
    [
        ("release", "20 a release, for any two people"),
        ("radian", "20 a radian between two people"),
        ("Euclidean distance", "20 a unit of Euclidean distance between two people"),
    ],
)
def test_epsilon_is_said_in_its_unit(unit: str, text: str) -> None:
    assert formatting.epsilon(ClaimSection(kind="x", text="x", epsilon=20.0, epsilon_unit=unit)) == text


def _luminance(colour: str) -> float:
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(one: str, other: str) -> float:
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("colours", [palette.LIGHT, palette.DARK], ids=["light", "dark"])
def test_text_and_marks_can_be_told_from_their_ground(colours: dict[str, str]) -> None:
    paper = colours["paper"]
    for text in ("ink", "soft", "pass", "fail", "released"):
        assert _contrast(colours[text], paper) >= 4.5, text
    for ground in ("pass", "fail"):
        assert _contrast(colours[ground], colours[f"{ground}-ground"]) >= 4.5
        assert _contrast(colours["ink"], colours[f"{ground}-ground"]) >= 4.5
    for mark in ("released", "clear", "blur", "pixelate", "solid", "axis"):
        assert _contrast(colours[mark], paper) >= 3, mark


def test_light_and_dark_name_the_same_colours() -> None:
    assert palette.LIGHT.keys() == palette.DARK.keys()
