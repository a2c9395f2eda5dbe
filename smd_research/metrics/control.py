"""The negative control of an attack on prompts: what its answers to other views say of this prompt.

It needs no more than true and guessed ids, so that it can be computed anew from a record.
"""

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from smd_research.data.prompts import TokenSpan
from smd_research.metrics.privacy import Answer, span_exact, token_accuracy


@dataclass(frozen=True, repr=False)
class Answered:
    """A prompt and what an attack answered.

    Attributes:
        truth: its token ids ``[n]``.
        guess: the answer.
        spans: its secrets.
        source: what kind of text it is.
    """

    truth: Sequence[int]
    guess: Answer
    spans: Sequence[TokenSpan] = ()
    source: str = ""

    @property
    def stratum(self) -> tuple[str, int]:
        """Source and length: a view of another kind of text, or of another length, would be no control."""
        return self.source, len(self.truth)


def controls(answers: Sequence[Answered], special_ids: Collection[int]) -> list[dict[str, float]]:
    """The control of each prompt: what the attack made of the other prompts' views, scored against this one.

    The others are all of the same stratum, of one source and length; their scores are averaged, and what the attack
    recovers beyond them from the prompt's own view is its excess. NaN where there is no other.

    Args:
        answers: one a prompt.
        special_ids: which no score counts.

    Returns:
        ``control_`` and ``excess_`` of every metric that has a control, by name; one mapping a prompt.
    """
    found = []
    for position, one in enumerate(answers):
        others = [other for i, other in enumerate(answers) if other.stratum == one.stratum and i != position]
        values = {}
        for name, score in _scorers(one, special_ids).items():
            chance = [score(other.guess) for other in others]
            values[f"control_{name}"] = sum(chance) / len(chance) if chance else math.nan
            values[f"excess_{name}"] = score(one.guess) - values[f"control_{name}"]
        found.append(values)
    return found


def _scorers(one: Answered, special_ids: Collection[int]) -> dict[str, Callable[[Answer], float]]:
    """The metrics of an answer that have a control."""
    return {
        "token_accuracy": lambda guess: token_accuracy(one.truth, guess, special_ids),
        "span_exact": lambda guess: span_exact(one.truth, guess, one.spans),
    }
