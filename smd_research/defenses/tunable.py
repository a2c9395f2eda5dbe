"""What a defense does for private tuning: which model the provider tunes, and what the client does to its data."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from smd_research.core.observable import Observable
from smd_research.defenses.base import NO_TEXT, Defense, Prepared, PublicText
from smd_research.models.bundle import Bundle


class ClientCode:
    """What the client does to everything it sends, and undoes in what comes back; this one is the identity."""

    def encode(self, ids: Sequence[int], occurrence: int = 0) -> Sequence[int]:
        """A text as it is sent.

        Args:
            ids: token ids of a text.
            occurrence: number of the text; a code that draws at random (homophones) draws the same for it again.
        """
        return ids

    def replaced(self, texts: Sequence[Sequence[int]], first: int = 0) -> Sequence[Sequence[int]]:
        """Texts as they are encoded: others where some of their tokens are replaced at random.

        Args:
            texts: token ids of each.
            first: number of the first text; the same text draws the same under the same number.
        """
        return texts

    def decode(self, ids: Sequence[int]) -> Sequence[int]:
        """The inverse of :meth:`encode`."""
        return ids

    def for_classes(self, count: int) -> Self:
        """The code for so many classes; another one where labels are permuted."""
        return self

    def encode_label(self, label: int) -> int:
        """A class as it is sent."""
        return label

    def decode_label(self, label: int) -> int:
        """The inverse of :meth:`encode_label`."""
        return label

    def plain_ids(self, vocabulary: int) -> NDArray[np.int64]:
        """The secret, for the score only: the plain id of every cipher id ``[V']``.

        Args:
            vocabulary: number of plain ids.
        """
        return np.arange(vocabulary, dtype=np.int64)


class VectorCode(ClientCode):
    """A client that sends a vector of each token in the place of its id, so that no id crosses."""

    @abstractmethod
    def vectors(self, ids: Sequence[int], number: int) -> Tensor:
        """A text as it is sent ``[n, width]``.

        Args:
            ids: token ids of the text.
            number: of the text; what is drawn for it is the same under the same number.
        """


@dataclass(frozen=True, repr=False, eq=False, kw_only=True)
class TunablePrepared(Prepared):
    """What the client has once its key, if it has one, is in the model that the provider gets to tune (``public``).

    Attributes:
        code: what the client does to its data.
        seconds: of each phase on the client's side: ``key``, ``implant``; a resumed phase counts all its parts.
        flops: of the same phases.
        tuning_shows: what the provider sees of private tuning and inference.
    """

    code: ClientCode = field(default_factory=ClientCode)
    seconds: Mapping[str, float] = field(default_factory=dict)
    flops: Mapping[str, float] = field(default_factory=dict)
    tuning_shows: frozenset[Observable]


class Tunable(Defense):
    """A defense under which a provider can tune the model on private data."""

    @property
    @abstractmethod
    def tuning_shows(self) -> frozenset[Observable]:
        """What the provider sees of private tuning and inference."""

    @abstractmethod
    def prepare(
        self, bundle: Bundle, public_text: PublicText = NO_TEXT, seed: int = 0, folder: Path | None = None
    ) -> TunablePrepared:
        """As every defense; the client's part of private tuning."""
