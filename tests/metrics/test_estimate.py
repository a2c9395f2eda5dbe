import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from smd_research.metrics import CARDS, aggregate, mean_by_token, perplexity, summarise

SHARES = st.lists(st.floats(0, 1), min_size=1, max_size=20)

NAMES = (
    "token_accuracy exact_match rouge_l edit_similarity span_exact span_similarity perplexity kl greedy_equal "
    "logit_error ttft_ms tpot_ms tokens_per_s messages rounds bytes_to_untrusted bytes_to_trusted weights_mb kv_mb "
    "resident_mb modelled_s attack_s attack_candidates certified top5_accuracy"
)


def test_every_promised_name_has_a_card_that_says_how_to_read_it() -> None:
    for name in NAMES.split():
        card = CARDS[name]
        assert card.name == name
        assert card.description
        assert card.better in ("lower", "higher")


def test_recovered_secrets_are_bad_for_the_user() -> None:
    for card in CARDS.values():
        if card.kind == "privacy" and card.ceiling == 1:
            assert card.better == ("higher" if card.name == "refused" else "lower"), card.name
            assert card.name in ("certified", "refused") or card.chance, card.name


def test_student_interval() -> None:
    found = aggregate([1.0, 2.0, 3.0, 4.0])
    # t(0.975, 3) = 3.182446, s / sqrt(4) = 0.645497
    assert (found.mean, found.n) == (2.5, 4)
    assert found.low == pytest.approx(2.5 - 2.054259, abs=1e-5)
    assert found.high == pytest.approx(2.5 + 2.054259, abs=1e-5)


def test_a_rate_has_clopper_and_pearsons_interval_where_all_are_hits_or_misses() -> None:
    found = aggregate([1.0] * 9 + [0.0], "rate")
    assert (found.low, found.high) == (pytest.approx(0.554984, abs=1e-5), pytest.approx(0.997471, abs=1e-5))
    assert aggregate([1.0], "rate").low == pytest.approx(0.025)


def test_all_hits_are_not_certainty() -> None:
    found = aggregate([1.0] * 20, "rate")
    assert (found.mean, found.high) == (1, 1)
    assert found.low == pytest.approx(0.8316, abs=1e-3)


def test_an_excess_is_a_difference_of_shares() -> None:
    values = [0.5, -0.25, 1.0, 0.0]
    found, shares = aggregate(values, "excess"), aggregate([(1 + value) / 2 for value in values], "rate")
    assert (found.low, found.high) == (pytest.approx(2 * shares.low - 1), pytest.approx(2 * shares.high - 1))
    assert aggregate([1.0] * 3, "excess").high == 1
    with pytest.raises(ValueError, match="excess"):
        aggregate([-1.5], "excess")


def test_nothing_and_gaps_are_left_out() -> None:
    assert aggregate([None, math.nan]).n == 0
    assert math.isnan(aggregate([]).mean)
    assert aggregate([None, 2.0, math.nan, 4.0]).n == 2
    single = aggregate([3.0])
    assert single.mean == 3
    assert math.isnan(single.low)


def test_out_of_scale_values_are_refused() -> None:
    with pytest.raises(ValueError, match="rate"):
        aggregate([1.5], "rate")
    with pytest.raises(ValueError, match="positive"):
        aggregate([0.0], "log")


def test_an_amount_is_never_below_zero() -> None:
    skewed = [1.0, 1.0, 1.0, 50.0]
    assert aggregate(skewed).low < 0
    assert aggregate(skewed, "positive").low == 0
    assert aggregate(skewed, "positive").high == aggregate(skewed).high


def test_a_named_metric_is_averaged_as_its_card_says() -> None:
    assert summarise("perplexity", [2.0, 8.0]).mean == pytest.approx(4)
    assert summarise("messages", [1.0, 1.0]).low == 1
    with pytest.raises(KeyError):
        summarise("nonsense", [1.0])


@settings(max_examples=80, deadline=None)
@given(values=SHARES)
def test_a_rate_lies_in_its_interval_and_in_the_unit(values: list[float]) -> None:
    found = aggregate(values, "rate")
    assert 0 <= found.mean <= 1
    if found.n:
        assert -1e-12 <= found.low <= found.mean + 1e-12 <= found.high + 2e-12 <= 1 + 3e-12


def test_perplexity_weighs_tokens_not_prompts() -> None:
    found = perplexity([10 * math.log(4), 30 * math.log(2)], [10, 30])
    assert found.mean == pytest.approx(math.exp((10 * math.log(4) + 30 * math.log(2)) / 40))
    assert found.low < found.mean < found.high
    assert perplexity([3.0, 0.0], [3, 0]).mean == pytest.approx(math.e)
    assert perplexity([], []).n == 0
    with pytest.raises(ValueError, match="counts"):
        perplexity([1.0], [])


def test_the_perplexity_interval_of_two_prompts_is_that_of_the_ratio_estimator_by_hand() -> None:
    """Two texts of 10 tokens at 1 and 3 nats a token: 2 nats, errors -10 and 10, factor n / (n - 1) = 2."""
    found = perplexity([10.0, 30.0], [10, 10])
    error = math.sqrt(2 * (10**2 + 10**2)) / 20
    reach = stats.t.ppf(0.975, 1) * error
    assert found.mean == pytest.approx(math.exp(2))
    assert found.high == pytest.approx(math.exp(2 + reach))
    assert found.low == 1
    # the ratio of texts of one length is a mean, whose interval has the same factor
    equal = perplexity([11.0, 12.0, 14.0], [10, 10, 10])
    mean = aggregate([1.1, 1.2, 1.4])
    assert (math.log(equal.low), math.log(equal.high)) == (pytest.approx(mean.low), pytest.approx(mean.high))


@given(st.lists(st.tuples(st.floats(-30, 30), st.integers(1, 40)), min_size=2, max_size=12))
def test_a_difference_by_token_has_an_interval_about_it_whatever_its_sign(documents: list[tuple[float, int]]) -> None:
    sums, tokens = map(list, zip(*documents, strict=True))
    found = mean_by_token(sums, tokens)
    assert found.low <= found.mean <= found.high
    other = mean_by_token([-value for value in sums], tokens)
    assert (other.low, other.high) == (pytest.approx(-found.high), pytest.approx(-found.low))


def test_the_perplexity_interval_covers() -> None:
    generator = np.random.default_rng(0)
    hits = 0
    for _ in range(400):
        counts = generator.integers(5, 40, 25)
        sums = [float(generator.gamma(2.0, 0.5, count).sum()) for count in counts]
        found = perplexity(sums, counts.tolist())
        hits += found.low <= math.e <= found.high
    assert 0.92 <= hits / 400 <= 0.98


def test_a_level_of_chance_is_known_and_has_no_interval() -> None:
    found = summarise("stream_chance", [0.25] * 8)
    assert (found.mean, found.n) == (0.25, 8)
    assert math.isnan(found.low)
    assert math.isnan(found.high)
