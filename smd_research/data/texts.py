"""Texts as token ids or as vectors, with their classes: what a task is made of, and what is trained on."""

import hashlib
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from smd_research.data.prompts import TokenSpan

Labelled = tuple[Tensor, Tensor, Tensor]
"""A batch: token ids ``[rows, longest]``, or vectors ``[rows, longest, width]``, padded with 0 on the right, lengths
``[rows]``, labels ``[rows]``."""


@dataclass(frozen=True, repr=False)
class Texts:
    """Token ids of texts, and the class of each (empty where there is none).

    Attributes:
        ids: of each text.
        labels: of each text, or nothing.
        spans: secrets of each text in token offsets, or nothing.
    """

    ids: tuple[tuple[int, ...], ...]
    labels: tuple[int, ...] = ()
    spans: tuple[tuple[TokenSpan, ...], ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each text ``[n]``."""
        return np.array([len(text) for text in self.ids], dtype=np.int64)

    @property
    def tokens(self) -> int:
        """Number of tokens of all texts."""
        return sum(map(len, self.ids))

    @property
    def content(self) -> object:
        """What tells these texts from others, without their classes, as JSON writes it."""
        return self.ids

    def part(self, first: int, last: int) -> "Texts":
        """The texts from one to before another."""
        return Texts(self.ids[first:last], self.labels[first:last])

    def batch(self, rows: NDArray[np.int64]) -> Labelled:
        """Some of the texts, padded to the longest of them."""
        return _padded([torch.tensor(self.ids[row]) for row in rows], self.labels, rows)

    def packed(self, length: int) -> "Texts":
        """One text after the other, cut into rows of ``length`` tokens; what does not fill a row is left out."""
        whole = [token for text in self.ids for token in text]
        return Texts(tuple(tuple(whole[at : at + length]) for at in range(0, len(whole) - length + 1, length)))


@dataclass(frozen=True, repr=False)
class VectorTexts:
    """Texts of which a vector of each token is known in place of its id, and the class of each.

    Attributes:
        rows: of each text ``[tokens, width]``.
        labels: of each text, or nothing.
    """

    rows: tuple[Tensor, ...]
    labels: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each text ``[n]``."""
        return np.array([len(text) for text in self.rows], dtype=np.int64)

    @property
    def tokens(self) -> int:
        """Number of tokens of all texts."""
        return sum(map(len, self.rows))

    @property
    def content(self) -> object:
        """See ``Texts``."""
        return [hashlib.sha256(row.float().cpu().numpy().tobytes()).hexdigest() for row in self.rows]

    def part(self, first: int, last: int) -> "VectorTexts":
        """The texts from one to before another."""
        return VectorTexts(self.rows[first:last], self.labels[first:last])

    def batch(self, rows: NDArray[np.int64]) -> Labelled:
        """Some of the texts, padded to the longest of them."""
        return _padded([self.rows[row].float() for row in rows], self.labels, rows)


Readable: TypeAlias = Texts | VectorTexts
"""What a model reads, and so what it may be trained on."""


def _padded(chosen: list[Tensor], labels: tuple[int, ...], rows: NDArray[np.int64]) -> Labelled:
    padded = torch.nn.utils.rnn.pad_sequence(chosen, batch_first=True)
    named = [labels[row] for row in rows] if labels else []
    return padded, torch.tensor([len(one) for one in chosen]), torch.tensor(named, dtype=torch.long)
