"""Picking the real stream: found, chance, eps_eff."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smd_research.core.guess import Guess, Verdict
from smd_research.data.prompts import TokenSpan
from smd_research.metrics import CARDS, JUDGES, streams

TRUTH = (1, 5, 6, 7, 8)
SPANS = (TokenSpan(1, 3, "name"), TokenSpan(4, 5, "date"))
REAL, FAKE, HALF = TRUTH, (1, 9, 9, 7, 9), (1, 5, 6, 7, 9)


def guess(*verdicts: Verdict, candidates: tuple[tuple[int, ...], ...] = (FAKE, REAL, HALF)) -> Guess:
    return Guess(candidates[verdicts[0].picked], candidates=candidates, verdicts=verdicts)


def test_the_real_stream_counts_as_found_only_whole() -> None:
    for picked, right in ((0, 0.0), (1, 1.0), (2, 0.0)):
        values = streams(TRUTH, guess(Verdict("likelihood", (0.2, 0.5, 0.3), picked)), SPANS)
        assert values["stream_found"] == values["found_likelihood"] == right
        assert values["stream_advantage"] == pytest.approx(right - 1 / 3)


def test_only_secret_tokens_decide() -> None:
    misread = (1, 5, 6, 0, 8)
    values = streams(TRUTH, guess(Verdict("joint", (0.5, 0.5), 1), candidates=(FAKE, misread)), SPANS)
    assert values["stream_found"] == 1
    assert values["real_stream_read"] == 1


def test_a_stream_that_was_not_read_is_not_found() -> None:
    values = streams(TRUTH, guess(Verdict("joint", (0.5, 0.5), 1), candidates=(FAKE, HALF)), SPANS)
    assert values["stream_found"] == values["real_stream_read"] == 0


def test_eps_eff_is_the_excess_of_the_largest_posterior() -> None:
    values = streams(TRUTH, guess(Verdict("joint", (0.2, 0.7, 0.1), 1), Verdict("random", (1 / 3,) * 3, 0)), SPANS)
    assert values["eps_eff_joint"] == pytest.approx(0.7 - 1 / 3)
    assert values["eps_eff_random"] == pytest.approx(0)
    assert values["max_posterior_joint"] == 0.7


def test_requests_needed_is_for_the_right_pick_only() -> None:
    for picked, requests, expected in ((1, 3, 3.0), (0, 3, math.nan), (1, None, math.nan)):
        verdict = Verdict("intersection", (0.1, 0.8, 0.1), picked, requests)
        needed = streams(TRUTH, guess(verdict), SPANS)["requests_needed"]
        assert needed == expected or (math.isnan(needed) and math.isnan(expected))


def test_requests_are_counted_by_intersection_alone() -> None:
    others = Verdict("likelihood", (0.1, 0.8, 0.1), 1, 7), Verdict("joint", (0.1, 0.8, 0.1), 1)
    verdict = Verdict("intersection", (0.1, 0.8, 0.1), 1, 3)
    assert streams(TRUTH, guess(others[0], verdict, others[1]), SPANS)["requests_needed"] == 3
    assert "requests_needed" not in streams(TRUTH, guess(*others), SPANS)


@pytest.mark.parametrize("judge", JUDGES)
def test_chance_of_a_pick_is_one_in_as_many_as_there_are_streams(judge: str) -> None:
    chance = "1 / number of streams: stream_chance"
    assert CARDS["stream_found"].chance == CARDS[f"found_{judge}"].chance == chance
    assert CARDS[f"max_posterior_{judge}"].chance == chance
    assert JUDGES[judge] in CARDS[f"found_{judge}"].description


def test_nothing_to_pick_gives_no_metric_and_no_secret_no_value() -> None:
    assert streams(TRUTH, Guess(TRUTH), SPANS) == {}
    assert math.isnan(streams(TRUTH, guess(Verdict("joint", (0.5, 0.3, 0.2), 0)), ())["stream_found"])


@given(st.sampled_from(sorted(JUDGES)), st.lists(st.floats(0.01, 1), min_size=2, max_size=16))
def test_every_value_has_a_card_and_fits_it(judge: str, weights: list[float]) -> None:
    posterior = tuple(weight / sum(weights) for weight in weights)
    made = guess(Verdict(judge, posterior, 0, 2), candidates=(REAL,) * len(posterior))
    for name, value in streams(TRUTH, made, SPANS).items():
        assert name in CARDS
        assert math.isnan(value) or value >= -1e-9 or name == "stream_advantage"
