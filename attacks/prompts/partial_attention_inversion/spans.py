"""Whole assignments from the row space: what it holds of a prompt, put in order, and peeled where it is full.

A prompt with as many distinct values as a head has dimensions spans everything. But a row's maximum is exact, and often
names a (token, position) pair; once enough pairs are known, what they add is subtracted, and the rest spans less.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from attacks.prompts.partial_attention_inversion.measurements import LayerTable, Measurements
from attacks.prompts.partial_attention_inversion.order import assign
from attacks.prompts.partial_attention_inversion.row_space import RowSpace, deviation, members

_TYPICAL = 0.15  # of the largest error of a score that rounding explains


@dataclass(frozen=True)
class Spanned:
    """What the row space says of the open positions.

    Attributes:
        ids: the token of each open position.
        shortlists: tokens that may stand at each, nearest first.
    """

    ids: list[int]
    shortlists: list[Tensor]


def span(seen: Measurements, table: LayerTable, length: int, known: dict[int, int]) -> Spanned | None:
    """Read the open positions off the row space; None where the rows span all they can.

    Args:
        seen: the measurements.
        table: keys and values of the vocabulary.
        length: of the prompt.
        known: tokens of positions that are known, by place in the prompt.
    """
    places = [place for place in range(length) if place not in known]
    rest, error = _less(seen, table, known)
    positions = [seen.first + place for place in places]
    found = members(RowSpace.of(rest, error), table, positions)
    if found is None:
        return None
    if not table.alike:
        return Spanned([int(ids[0]) for ids in found.ids], found.ids)
    return Spanned(assign(seen, rest, table, found.tokens, positions), found.ids)


def _less(seen: Measurements, table: LayerTable, known: dict[int, int]) -> tuple[Tensor, Tensor]:
    """Averages without what known positions add, with the deviation of the entries of each head."""
    rest, error = seen.average.double(), deviation(seen).square()
    for place, token in known.items():
        keys, values = table(seen.first + place, torch.tensor([token]))
        share = seen.excess(keys, seen.first + place)[..., 0].double().exp() / seen.mass.double()
        rest = rest - share[..., None] * values[0].double()[:, None]
        off = (share * seen.tolerance(keys) * _TYPICAL).square().mean(1)
        error = error + off * values[0].double().square().mean(-1)
    return rest, error.sqrt()
