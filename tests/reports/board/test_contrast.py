"""Text can be read on every ground of the pages, in light and in dark (WCAG 2.2, 1.4.3: 4.5 to 1)."""

import pytest

from smd_research.reports.render.page_style import DARK, LIGHT

SHADE = 0.58
"""How much of its tint the darkest place of a matrix has, as board.css says."""


def channels(colour: str) -> tuple[float, ...]:
    return tuple(int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5))


def luminance(rgb: tuple[float, ...]) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize("ink", ["ink", "quiet", "accent", "recovered", "wrong", "abstained"])
@pytest.mark.parametrize("ground", ["paper", "raised"])
def test_text_on_its_ground(theme: dict[str, str], ink: str, ground: str) -> None:
    assert contrast(channels(theme[ink]), channels(theme[ground])) >= 4.5


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize("tint", ["leak-rgb", "amount-rgb"])
def test_text_on_the_darkest_place_of_a_matrix(theme: dict[str, str], tint: str) -> None:
    own = [int(part) / 255 for part in theme[tint].split(",")]
    ground = tuple(SHADE * a + (1 - SHADE) * b for a, b in zip(own, channels(theme["raised"]), strict=True))
    assert contrast(channels(theme["ink"]), ground) >= 4.5


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_controls_can_be_seen(theme: dict[str, str]) -> None:
    assert contrast(channels(theme["control"]), channels(theme["paper"])) >= 3
