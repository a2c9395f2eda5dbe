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


def exact_match(truth: Sequence[int], guess: Answer, special_ids: Collection[int] = ()) -> float:
    """1 when the whole prompt is recovered token for token, nothing missing and nothing added; else 0."""
    pairs = _aligned(truth, guess, special_ids)
    if not pairs:
        return math.nan
    return float(all(t == g for t, g in pairs) and len(guessed_ids(guess)) == len(truth))


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


def edit_similarity(truth: Sequence[int], guess: Answer, special_ids: Collection[int] = ()) -> float:
    """1 - Levenshtein distance / longer length, over token ids: forgives a shift, which token accuracy does not."""
    true_ids = [int(t) for t in truth if t not in special_ids]
    ids = [int(g) for g in guessed_ids(guess) if g not in special_ids]
    return float(Levenshtein.normalized_similarity(true_ids, ids)) if true_ids else math.nan


def rouge_l(truth_text: str, guess_text: str) -> float:
    """ROUGE-L F1 over lower-cased words: the longest common subsequence (Lin 2004), as torchmetrics computes it."""
    # Imported here: it costs half a second, and most callers of this module never need it.
    from torchmetrics.functional.text.rouge import rouge_score

    if not truth_text.strip():
        return math.nan
    return float(rouge_score(guess_text, truth_text, rouge_keys="rougeL")["rougeL_fmeasure"])


def span_exact(truth: Sequence[int], guess: Answer, spans: Iterable[TokenSpan]) -> float:
    """Share of secret spans recovered token for token at their place; NaN for a prompt without secrets."""
    ids = list(guessed_ids(guess))
    hits = [list(truth[s.start : s.end]) == ids[s.start : s.end] for s in spans]
    return sum(hits) / len(hits) if hits else math.nan


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


def choice_found(guess: Guess, truth: int, k: int) -> float:
    """1 when the true one of several public alternatives is among the attack's ``k`` best, else 0."""
    return float(truth in guess.choices[:k])


def attack_candidates(guess: Guess) -> float:
    """How many candidates the attack evaluated."""
    return float(guess.spent.candidates)


def certified(guess: Guess) -> float:
    """1 when the attack proved its own guess right, 0 when its check failed, NaN when it has no check."""
    return math.nan if guess.certified is None else float(guess.certified)
