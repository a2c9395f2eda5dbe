"""Texts as token ids, with their classes: what a task is made of, and what is trained on."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from smd_research.data.prompts import TokenSpan

Labelled = tuple[Tensor, Tensor, Tensor]
"""A batch: token ids ``[rows, longest]`` padded with 0 on the right, lengths ``[rows]``, labels ``[rows]``."""


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

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each text ``[n]``."""
        return np.array([len(text) for text in self.ids], dtype=np.int64)

    @property
    def tokens(self) -> int:
        """Number of tokens of all texts."""
        return sum(map(len, self.ids))

    def batch(self, rows: NDArray[np.int64]) -> Labelled:
        """Some of the texts, padded to the longest of them."""
        chosen = [torch.tensor(self.ids[row]) for row in rows]
        padded = torch.nn.utils.rnn.pad_sequence(chosen, batch_first=True)
        labels = [self.labels[row] for row in rows] if self.labels else []
        return padded, torch.tensor([len(one) for one in chosen]), torch.tensor(labels, dtype=torch.long)

    def packed(self, length: int) -> "Texts":
        """One text after the other, cut into rows of ``length`` tokens; what does not fill a row is left out."""
        whole = [token for text in self.ids for token in text]
        return Texts(tuple(tuple(whole[at : at + length]) for at in range(0, len(whole) - length + 1, length)))
