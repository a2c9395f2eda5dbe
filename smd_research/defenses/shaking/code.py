"""What the client does with its key: ids and labels before they are sent, ids, labels and logits that come back."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from smd_research.defenses.shaking.fresh import FreshNoise
from smd_research.defenses.tunable import ClientCode
from smd_research.mechanisms.shaking import KeyStream, Substitution, label_permutation
from smd_research.training.recovery import decoded


@dataclass(frozen=True, repr=False, eq=False)
class KeyedCode(ClientCode):
    """A substitution of ids, and a permutation of labels and fresh noise where there are any.

    Attributes:
        substitution: of ids.
        draws: decides which homophone an occurrence takes; None takes the first.
        labels: the stream that permutes labels; None leaves them.
        label_of: the label that is sent for each, once their number is known.
        fresh: replaces tokens of a text before it is encoded; None replaces none.
    """

    substitution: Substitution
    draws: KeyStream | None = None
    labels: KeyStream | None = None
    label_of: tuple[int, ...] = ()
    fresh: FreshNoise | None = None

    def for_classes(self, count: int) -> Self:
        """The code for so many classes."""
        if self.labels is None:
            return self
        return replace(self, label_of=tuple(label_permutation(self.labels, count).tolist()))

    def replaced(self, texts: Sequence[Sequence[int]], first: int = 0) -> Sequence[Sequence[int]]:
        """Texts with fresh noise; see ``ClientCode``."""
        return texts if self.fresh is None else self.fresh.replaced(texts, first)

    def encode(self, ids: Sequence[int], occurrence: int = 0) -> Sequence[int]:
        """Cipher ids of a text; see ``ClientCode``.

        Raises:
            PromptError: for an id that the key does not know.
        """
        rng = None
        if self.draws is not None:
            rng = np.random.default_rng(self.draws.child(occurrence).words(4))
        cipher: list[int] = self.substitution.encode(ids, rng).tolist()
        return cipher

    def decode(self, ids: Sequence[int]) -> Sequence[int]:
        """Plain ids of a text."""
        plain: list[int] = self.substitution.decode(ids).tolist()
        return plain

    def encode_label(self, label: int) -> int:
        """A class as it is sent."""
        return self.label_of[label] if self.label_of else label

    def decode_label(self, label: int) -> int:
        """The inverse of ``encode_label``."""
        return self.label_of.index(label) if self.label_of else label

    def decode_logits(self, logits: Tensor) -> Tensor:
        """Logits of plain ids ``[..., V]`` from those of cipher ids ``[..., V']``."""
        return decoded(logits, torch.from_numpy(self.substitution.homophones).to(logits.device))

    def plain_ids(self, vocabulary: int) -> NDArray[np.int64]:
        """The secret, for the score only: the plain id of every cipher id ``[V']``."""
        return self.substitution.plain_of
