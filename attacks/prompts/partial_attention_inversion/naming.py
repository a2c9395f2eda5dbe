"""Pairs that the row maxima name, over the whole vocabulary.

At least one position's score equals a row's maximum to the last bits, and no position's exceeds one. So a row that only
one (position, token) pair explains names that pair, and every pair that is named leaves fewer for the other rows. Of a
real vocabulary thousands of tokens stay possible at a position that is seldom looked at, too many to keep their scores
in every row; the pairs that meet a maximum are few, and nothing else is kept here.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from attacks.prompts.partial_attention_inversion.deduction import SLACKS, ContradictionError, roughly_under, under
from attacks.prompts.partial_attention_inversion.measurements import REORDERED, LayerTable, Measurements

_BLOCK = 2**22  # scores held at once

Pairs = NDArray[np.int64]
"""A row, a place and a token that meet ``[pairs, 3]``."""


def named(seen: Measurements, table: LayerTable, length: int, known: Mapping[int, int]) -> dict[int, int]:
    """Tokens by their places in the prompt, as far as row maxima name them.

    Args:
        seen: the measurements; their ``m`` must be a score of one of the keys.
        table: keys and values of the vocabulary at a position.
        length: prompt length.
        known: tokens of places that are public.

    Returns:
        Named and known ones together; the known ones alone where rounding beyond all tolerances contradicts itself.
    """
    for slack in SLACKS:
        try:
            return _alone(_meetings(seen, table, length, known, slack), seen.maximum.numel(), known)
        except ContradictionError:
            continue
    return dict(known)


def _meetings(seen: Measurements, table: LayerTable, length: int, known: Mapping[int, int], slack: float) -> Pairs:
    """The pairs that exceed no maximum and meet some."""
    found, near = [], _Near(seen, table, slack)
    for place in range(length):
        position = seen.first + place
        ids = torch.tensor([known[place]]) if place in known else near(position)
        if not len(ids):
            continue
        keys, _ = table(position, ids)
        tolerance = slack * seen.tolerance(keys)
        left = under(seen, keys, position, tolerance)[1]
        if not len(left) and place in known:
            raise ContradictionError
        for some in torch.split(left, max(1, _BLOCK // tolerance.numel())):
            meets = seen.excess(keys[some], position).abs() <= tolerance[..., None]
            rows, which = meets.flatten(0, 1).nonzero(as_tuple=True)
            found.append(torch.stack([rows, torch.full_like(rows, place), ids[some[which]]], 1))
    return torch.cat(found).numpy() if found else np.empty((0, 3), np.int64)


class _Near:
    """Tokens that may meet a maximum and exceed none.

    Where keys can be turned the rows' queries are turned back instead, a few vectors in the place of the vocabulary;
    where there are rough keys they are looked at first.
    """

    def __init__(self, seen: Measurements, table: LayerTable, slack: float) -> None:
        self._seen, self._table, self._slack = seen, table, slack
        self._back = table.back if seen.queries.dtype == torch.float32 else None
        if self._back is not None:
            keys = table(0, None)[0]
            self._allowed = REORDERED * slack * seen.tolerance(keys)[..., None]
            self._keys = keys.transpose(0, 1).contiguous().transpose(0, 1)  # a matrix a head

    def __call__(self, position: int) -> Tensor:
        """Their ids, at an absolute position."""
        if self._back is None:
            return roughly_under(self._seen, self._table, position, self._slack)[1]
        turned = replace(self._seen, queries=self._back(self._seen.queries, position))
        some = max(1, _BLOCK // self._allowed.numel())
        highest = [
            turned.excess(keys, position).div_(self._allowed).flatten(0, 1).amax(0)
            for keys in torch.split(self._keys, some)
        ]
        return (torch.cat(highest).abs() <= 1).nonzero()[:, 0]


def _alone(pairs: Pairs, rows: int, known: Mapping[int, int]) -> dict[int, int]:
    """What follows from rows that one pair explains, to a fixed point.

    Raises:
        ContradictionError: when nothing explains a row, or a place would hold two tokens.
    """
    told = dict(known)
    while True:
        explanations = np.bincount(pairs[:, 0], minlength=rows)
        if not explanations.all():
            raise ContradictionError
        before = len(told)
        for _, place, token in pairs[explanations[pairs[:, 0]] == 1].tolist():
            if told.setdefault(place, token) != token:
                raise ContradictionError
        if len(told) == before:
            return told
        holds = np.array([told.get(place, -1) for place in range(int(pairs[:, 1].max()) + 1)])[pairs[:, 1]]
        pairs = pairs[(holds < 0) | (holds == pairs[:, 2])]
