"""What rewriters have in common: a text goes in, another comes out, and its law can be written down."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from smd_research.core.guarantee import Guarantee
from smd_research.mechanisms.rewriting.clipped_softmax import ClippedSoftmax

_HELD = 2**25
"""Log probabilities held at once."""


@dataclass(frozen=True, eq=False)
class Rewriter(ABC):
    """A randomised map of texts, drawn token by token with the whole text in sight.

    Attributes:
        softmax: the law of one token, given a model's logits.
    """

    softmax: ClippedSoftmax

    @abstractmethod
    def rewrite(self, ids: Sequence[int], rng: np.random.Generator) -> list[int]:
        """The text that is sent in place of ``ids [n]``.

        Raises:
            PromptError: for a text that is too long to be rewritten.
        """

    @abstractmethod
    def logits(self, texts: Tensor, sent: Sequence[int]) -> Tensor:
        """The model's logits of every token that was drawn, given the ones drawn before it ``[texts, drawn, vocab]``.

        Args:
            texts: token ids of what may have been rewritten ``[texts, n]``, special tokens in the same places.
            sent: what was made of it.

        Raises:
            PromptError: for texts that are too long to be rewritten.
        """

    def logits_at(self, texts: Tensor, sent: Sequence[int], place: int) -> Tensor:
        """Those of one of the tokens that were drawn alone ``[texts, vocab]``; as :meth:`logits`.

        Args:
            texts: as there.
            sent: of which only what stands before ``place`` counts.
            place: where it was drawn.
        """
        return self.logits(texts, sent[: place + 1])[:, -1]

    @abstractmethod
    def drawn(self, sent: Sequence[int]) -> list[int]:
        """Places of ``sent`` that were drawn; all others passed."""

    def conditions(self, sent: Sequence[int]) -> tuple[int, ...]:
        """What of a text that was sent its laws depend on: here the tokens, each drawn after those before it."""
        return tuple(sent)

    @abstractmethod
    def guarantee(self) -> Guarantee | None:
        """What one written token is promised; None where nothing is."""

    def log_laws(self, texts: Tensor, sent: Sequence[int]) -> Tensor:
        """Log law of every token that was drawn, in float64; as :meth:`logits`."""
        return self.softmax.log_law(self.logits(texts, sent))

    def log_likelihood(self, texts: Tensor, sent: Sequence[int]) -> Tensor:
        """``log p(sent | text)`` of every text ``[texts]`` (float64, on the CPU)."""
        target = torch.tensor([sent[place] for place in self.drawn(sent)], dtype=torch.long, device=texts.device)
        found = []
        for part in self.parts(texts, len(target)):
            laws = self.log_laws(part, sent)
            found.append(laws.gather(-1, target.expand(len(part), -1)[..., None])[..., 0].sum(-1).cpu())
        return torch.cat(found)

    def parts(self, texts: Tensor, drawn: int) -> Iterator[Tensor]:
        """The texts, as many at a time as their laws of ``drawn`` tokens fit into memory."""
        yield from torch.split(texts, max(1, _HELD // max(1, drawn * self.vocab)))

    @property
    @abstractmethod
    def vocab(self) -> int:
        """Number of tokens."""
