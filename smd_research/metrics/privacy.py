"""Privacy: how much of the prompt a guess gives away. Lower is better for the user.

Every function compares the true token ids of a prompt, ``[n]``, with a guess: token ids (``-1`` where the attack
abstains) or a :class:`~smd_research.core.guess.Guess`. Special tokens (the begin-of-sequence token, which every
attacker knows) are left out by naming their ids; an abstention counts as wrong.
"""

import math
from collections.abc import Callable, Collection, Iterable, Sequence

from rapidfuzz.distance import Levenshtein

from smd_research.core.guess import Guess
from smd_research.data.prompts import TokenSpan
from smd_research.metrics.card import CONTROL, PRIOR, Card

Answer = Guess | Sequence[int]
"""What an attack answers: a full guess, or only its token ids."""

Decode = Callable[[list[int]], str]
"""Turns token ids into text."""

ABSTAIN = -1


def guessed_ids(guess: Answer) -> Sequence[int]:
    """The best token id at each position."""
    return guess.ids if isinstance(guess, Guess) else guess


def _aligned(truth: Sequence[int], guess: Answer, special_ids: Collection[int]) -> list[tuple[int, int]]:
    """Pairs (true id, guessed id) of the positions that count; positions the guess does not reach are abstentions."""
    ids = guessed_ids(guess)
    reached = [ids[i] if i < len(ids) else ABSTAIN for i in range(len(truth))]
    return [(int(t), int(g)) for t, g in zip(truth, reached, strict=True) if t not in special_ids]


def token_accuracy(truth: Sequence[int], guess: Answer, special_ids: Collection[int] = ()) -> float:
    """Share of positions whose token is right; NaN for a prompt of special tokens only."""
    pairs = _aligned(truth, guess, special_ids)
    return sum(t == g for t, g in pairs) / len(pairs) if pairs else math.nan


TOKEN_ACCURACY = Card.leak(
    "token_accuracy", "tokens recovered", "positions whose token is right, special tokens left out"
)


def top5_accuracy(truth: Sequence[int], guess: Answer, special_ids: Collection[int] = ()) -> float:
    """Share of positions whose token is among the attack's five best candidates."""
    return top_k_accuracy(truth, guess, 5, special_ids)


def top_k_accuracy(truth: Sequence[int], guess: Answer, k: int, special_ids: Collection[int] = ()) -> float:
    """Share of positions whose token is among the ``k`` best candidates; a guess without ranking has one candidate."""
    ranked = guess.ranked if isinstance(guess, Guess) else ()
    ids = guessed_ids(guess)
    hits = []
    for position, token in enumerate(truth):
        if token in special_ids:
            continue
        candidates = ranked[position][:k] if position < len(ranked) else ()
        best = ids[position : position + 1] if not candidates else ()
        hits.append(token in candidates or token in best)
    return sum(hits) / len(hits) if hits else math.nan


TOP5_ACCURACY = Card.leak("top5_accuracy", "tokens in top 5", "positions whose token is among the five best candidates")


def exact_match(truth: Sequence[int], guess: Answer, special_ids: Collection[int] = ()) -> float:
    """1 when the whole prompt is recovered token for token, nothing missing and nothing added; else 0."""
    pairs = _aligned(truth, guess, special_ids)
    if not pairs:
        return math.nan
    return float(all(t == g for t, g in pairs) and len(guessed_ids(guess)) == len(truth))


EXACT_MATCH = Card.leak("exact_match", "whole prompts", "prompts recovered token for token")


def rouge_l(truth_text: str, guess_text: str) -> float:
    """ROUGE-L F1 over lower-cased words: the longest common subsequence (Lin 2004), as torchmetrics computes it."""
    # Imported here: it costs half a second, and most callers of this module never need it.
    from torchmetrics.functional.text.rouge import rouge_score

    if not truth_text.strip():
        return math.nan
    return float(rouge_score(guess_text, truth_text, rouge_keys="rougeL")["rougeL_fmeasure"])


ROUGE_L = Card.leak("rouge_l", "ROUGE-L", "longest common subsequence of words, F1")


def edit_similarity(truth: Sequence[int], guess: Answer, special_ids: Collection[int] = ()) -> float:
    """1 - Levenshtein distance / longer length, over token ids: forgives a shift, which token accuracy does not."""
    true_ids = [int(t) for t in truth if t not in special_ids]
    ids = [int(g) for g in guessed_ids(guess) if g not in special_ids]
    return float(Levenshtein.normalized_similarity(true_ids, ids)) if true_ids else math.nan


EDIT_SIMILARITY = Card.leak(
    "edit_similarity", "edit similarity", "1 - Levenshtein distance / longer length, over tokens"
)


def span_exact(truth: Sequence[int], guess: Answer, spans: Iterable[TokenSpan]) -> float:
    """Share of secret spans recovered token for token at their place; NaN for a prompt without secrets."""
    ids = list(guessed_ids(guess))
    hits = [list(truth[s.start : s.end]) == ids[s.start : s.end] for s in spans]
    return sum(hits) / len(hits) if hits else math.nan


SPAN_EXACT = Card.leak(
    "span_exact", "secrets recovered", "secret spans recovered token for token; mean over prompts with secrets"
)


def span_similarity(truth: Sequence[int], guess: Answer, spans: Iterable[TokenSpan], decode: Decode) -> float:
    """Mean over secret spans of the character edit similarity between the true and the guessed text of the span.

    Abstentions are left out of the guessed text. NaN for a prompt without secrets.
    """
    scores = []
    for span in spans:
        true_text = decode([int(t) for t in truth[span.start : span.end]]).strip()
        found = [int(g) for g in guessed_ids(guess)[span.start : span.end] if g != ABSTAIN]
        scores.append(Levenshtein.normalized_similarity(true_text, decode(found).strip()))
    return sum(scores) / len(scores) if scores else math.nan


SPAN_SIMILARITY = Card.leak("span_similarity", "secret similarity", "character edit similarity of secret spans")

CONTROLS = (
    Card.leak("control_token_accuracy", "tokens, control", f"token_accuracy of {CONTROL}: the chance level", PRIOR),
    Card.leak("control_span_exact", "secrets, control", f"span_exact of {CONTROL}: the chance level", PRIOR),
)
"""The same functions, of guesses made from other prompts' views: their mean."""

EXCESSES = tuple(
    Card(
        f"excess_{name}", f"{label} beyond the control", "privacy", "", "lower", "0", 1.0, "excess",
        f"{name} minus {CONTROL}, prompt by prompt",
    )
    for name, label in (("token_accuracy", "tokens"), ("span_exact", "secrets"))
)  # fmt: skip
"""The leak: what a prompt's own view gives beyond the views of others."""


def choice_found(guess: Guess, truth: int, k: int) -> float:
    """1 when the true one of several public alternatives is among the attack's ``k`` best, else 0."""
    return float(truth in guess.choices[:k])


CHOICES = (
    Card.leak(
        "choice_top1", "hidden value found", "hidden values that the attack ranks first of the register",
        "1 / length of the register: choice_chance",
    ),
    Card.leak(
        "choice_top5", "hidden value in top 5", "hidden values among the five best of the register",
        "5 / length of the register",
    ),
    Card(
        "refused", "refused", "privacy", "", "higher", "", 1.0, "rate",
        "requests of an active attack that the trusted party noticed and ended",
    ),
    Card.leak("choice_chance", "chance of a value", "1 / number of candidates that fit into the gap", "itself"),
    Card(
        "choices", "register", "privacy", "candidates", "higher", "", None, "positive",
        "candidates that fit into the gap, the hidden value included",
    ),
    Card.leak("control_choice_top1", "hidden value, control", f"choice_top1 of {CONTROL}: the chance level", PRIOR),
)  # fmt: skip
"""A value hidden in a public template, and whether an active attack was ended."""


def certified(guess: Guess) -> float:
    """1 when the attack proved its own guess right, 0 when its check failed, NaN when it has no check."""
    return math.nan if guess.certified is None else float(guess.certified)


CERTIFIED = Card(
    "certified", "certified", "privacy", "", "lower", "", 1.0, "rate",
    "guesses the attack proved right by itself, among those it could check",
)  # fmt: skip


def readable(guess: Guess) -> float:
    """1 when the attack finds that its guess reads as public text, 0 when not, NaN when it has no such view."""
    return math.nan if guess.readable is None else float(guess.readable)


READABLE = Card(
    "readable", "reads as public text", "privacy", "", "lower", "0", 1.0, "rate",
    "guesses that the attack finds within half a nat a token of public text: its own view, no proof",
)  # fmt: skip


def attack_candidates(guess: Guess) -> float:
    """How many candidates the attack evaluated."""
    return float(guess.spent.candidates)


ATTACK_CANDIDATES = Card(
    "attack_candidates", "candidates", "privacy", "candidates", "higher", "", None, "positive",
    "candidates the attack evaluated for a prompt",
)  # fmt: skip
