import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smd_research.core.guess import Guess, Spent
from smd_research.data.prompts import TokenSpan
from smd_research.metrics import (
    attack_candidates,
    certified,
    edit_similarity,
    exact_match,
    rouge_l,
    span_exact,
    span_similarity,
    token_accuracy,
    top5_accuracy,
    top_k_accuracy,
)

BOS = 1
TRUTH = (BOS, 5, 6, 7, 8)
WORDS = {5: "Ann", 6: " Lee", 7: " 19", 8: "84", 9: " 20"}
IDS = st.lists(st.integers(2, 9), min_size=1, max_size=8)


def decode(ids: list[int]) -> str:
    return "".join(WORDS[i] for i in ids)


def test_special_tokens_do_not_count() -> None:
    assert token_accuracy(TRUTH, (BOS, 0, 0, 0, 0), {BOS}) == 0
    assert token_accuracy(TRUTH, (0, 5, 6, 7, 8), {BOS}) == 1
    assert math.isnan(token_accuracy((BOS,), (BOS,), {BOS}))


def test_abstentions_and_missing_positions_are_wrong() -> None:
    assert token_accuracy(TRUTH, (BOS, 5, -1, 7, -1), {BOS}) == 0.5
    assert token_accuracy(TRUTH, (BOS, 5), {BOS}) == 0.25
    assert top5_accuracy(TRUTH, (BOS, 5), {BOS}) == 0.25


def test_a_guess_and_its_ids_score_alike() -> None:
    assert token_accuracy(TRUTH, Guess((BOS, 5, 6, 7, 9)), {BOS}) == token_accuracy(TRUTH, (BOS, 5, 6, 7, 9), {BOS})


def test_exact_match_wants_nothing_missing_and_nothing_added() -> None:
    assert exact_match(TRUTH, TRUTH, {BOS}) == 1
    assert exact_match(TRUTH, (*TRUTH, 9), {BOS}) == 0
    assert exact_match(TRUTH, TRUTH[:-1], {BOS}) == 0
    assert exact_match(TRUTH, (0, *TRUTH[1:]), {BOS}) == 1


def test_one_insertion_costs_one_edit() -> None:
    shifted = (BOS, 9, 5, 6, 7, 8)
    assert token_accuracy(TRUTH, shifted, {BOS}) == 0
    assert edit_similarity(TRUTH, shifted, {BOS}) == pytest.approx(4 / 5)


def test_top_k_reads_the_ranking() -> None:
    guess = Guess((9, 9), ranked=((9, 4, 3, 2, 1, 5), ()))
    assert top_k_accuracy((5, 9), guess, 5) == 0.5
    assert top_k_accuracy((5, 9), guess, 6) == 1.0
    assert top5_accuracy((1, 8), guess) == 0.5


def test_spans_are_scored_apart_from_template_words() -> None:
    spans = [TokenSpan(1, 3, "name"), TokenSpan(3, 5, "date")]
    guess = (BOS, 5, 6, 9, 8)
    assert span_exact(TRUTH, guess, spans) == 0.5
    # "19" + "84" against "20" + "84": two of four characters.
    assert span_similarity(TRUTH, guess, spans, decode) == pytest.approx((1 + 0.5) / 2)
    assert span_similarity(TRUTH, (BOS, -1, -1, -1, -1), spans, decode) == 0
    assert math.isnan(span_exact(TRUTH, guess, []))
    assert math.isnan(span_similarity(TRUTH, guess, [], decode))


def test_rouge_l_is_the_longest_common_subsequence_of_words() -> None:
    # LCS "the cat on mat" of 4: precision 4/5, recall 4/6.
    assert rouge_l("The cat sat on the mat", "the cat lay on mat") == pytest.approx(8 / 11)
    assert rouge_l("a b", "a b") == 1
    assert rouge_l("a b", "") == 0
    assert math.isnan(rouge_l(" ", "a"))


def test_what_an_attack_says_of_itself() -> None:
    assert attack_candidates(Guess((), spent=Spent(candidates=7))) == 7
    assert certified(Guess((), certified=True)) == 1
    assert certified(Guess((), certified=False)) == 0
    assert math.isnan(certified(Guess(())))


@settings(max_examples=60, deadline=None)
@given(truth=IDS, guess=st.lists(st.integers(-1, 9), max_size=10))
def test_scores_are_shares_and_ordered(truth: list[int], guess: list[int]) -> None:
    accuracy, exact = token_accuracy(truth, guess), exact_match(truth, guess)
    assert 0 <= exact <= accuracy <= 1
    assert 0 <= edit_similarity(truth, guess) <= 1
    assert (exact == 1) is (list(truth) == guess)
    assert (edit_similarity(truth, guess) == 1) is (list(truth) == guess)


@settings(max_examples=40, deadline=None)
@given(truth=IDS)
def test_the_truth_scores_one_everywhere(truth: list[int]) -> None:
    spans = [TokenSpan(0, len(truth), "all")]
    scores = (token_accuracy, exact_match, edit_similarity, top5_accuracy)
    assert [score(truth, truth) for score in scores] == [1, 1, 1, 1]
    assert span_exact(truth, truth, spans) == 1
    assert span_similarity(truth, truth, spans, str) == 1
