"""The same secret asked about again: fakes that are drawn anew each time come and go, the secret stays.

Intersection (statistical disclosure) as sequential Bayes. A wrong value of the first request returns in a later one
with a probability that is estimated from the values at hand: where all return every time (fakes that stick to their
secret), seeing one again says nothing.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from attacks.prompts.pick_stream.lineup import SURE, Lineup
from smd_research.boundary import AdversaryView
from smd_research.boundary.messages import StartDecode, Tokens

# How often the real value is missing from a request: only where it was misread.
_MISREAD = 0.01


def requests_of(view: AdversaryView) -> tuple[AdversaryView, ...]:
    """A view's requests one by one, in order; each with the outputs that its messages show."""
    begins = [i for i, (_, message) in enumerate(view.messages) if isinstance(message, StartDecode)]
    ends = [*begins[1:], len(view.messages)][: len(begins)]
    return tuple(_one(view, begin, end) for begin, end in zip(begins, ends, strict=True))


def _one(view: AdversaryView, begin: int, end: int) -> AdversaryView:
    """One request; a user's requests follow each other."""
    messages = view.messages[begin:end]
    start = messages[0][1]
    assert isinstance(start, StartDecode)
    steps = [start.first, *(message.ids for _, message in messages if isinstance(message, Tokens))]
    outputs = tuple(tuple(row) for row in torch.stack([step.long() for step in steps], 1).tolist())
    return replace(view, messages=messages, length=start.position, outputs=outputs)


def weights(lineups: Sequence[Lineup]) -> tuple[Tensor, int | None]:
    """What the later requests say of the first one's values.

    Args:
        lineups: one a request, alike but for the secrets; those of another length are left out.

    Returns:
        Log weights ``[streams]`` of the first line-up, and after how many requests one value was surer than 0.95.
    """
    first = lineups[0]
    alike = [lineup for lineup in lineups if lineup.ids.shape[1:] == first.ids.shape[1:]]
    secret = torch.cat([lineup.ids for lineup in alike])
    differs = (secret != secret[:1]).any(0)
    values = [lineup.values(differs) for lineup in alike]
    sure = None
    found = torch.zeros(first.size)
    returned = torch.zeros(first.size)
    for later, there in enumerate(values[1:], start=1):
        returned += torch.tensor([float(value in there) for value in values[0]])
        found = _evidence(returned, later)
        if sure is None and float(torch.softmax(found, 0).max()) >= SURE:
            sure = later + 1
    return found, sure


def _evidence(returned: Tensor, later: int) -> Tensor:
    """Log likelihood ratio of being real ``[streams]``, from how often each value came back in ``later`` requests."""
    others = (returned.sum() - returned + 0.5) / (later * (len(returned) - 1) + 1)
    here = ((1 - _MISREAD) / others).log()
    gone = (_MISREAD / (1 - others)).log()
    return returned * here + (later - returned) * gone
