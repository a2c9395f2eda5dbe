"""What every attack has in common: what it needs to see, and how it turns a view into a guess."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from smd_research.boundary import AdversaryView
from smd_research.boundary.session import Impostor
from smd_research.core.guess import Guess
from smd_research.core.observable import Observable
from smd_research.data.prompts import TokenSpan
from smd_research.models.bundle import Bundle


@dataclass(frozen=True, repr=False)
class Public:
    """What the adversary knows besides its view (Kerckhoffs): everything but the secret and the randomness.

    Attributes:
        bundle: the model as the adversary holds it and its tokenizer: public weights, or, where the weights are the
            secret, the part of them that the untrusted party stores.
        defense: short name of the defense, e.g. ``split``.
        parameters: the deployment's public parameters.
        corpus: token ids of an auxiliary corpus of the same kind of text, disjoint from what is attacked.
        spans: the secrets marked in each document of the corpus; empty where none are marked.
        more: at least so many tokens of such text, as far as the data goes; None: there is no more than the corpus.
        base: the public model that the served one was made from, where the defense changed it; None: there is none.
        before: the served model as it was before it was tuned on private data; None: it was not tuned.
    """

    bundle: Bundle
    defense: str
    parameters: Mapping[str, object]
    corpus: tuple[tuple[int, ...], ...] = ()
    spans: tuple[tuple[TokenSpan, ...], ...] = ()
    more: Callable[[int], Sequence[tuple[int, ...]]] | None = None
    base: Bundle | None = None
    before: Bundle | None = None

    def documents(self, tokens: int) -> Sequence[tuple[int, ...]]:
        """Public text of at least ``tokens`` tokens, or all there is."""
        return self.corpus if self.more is None else self.more(tokens)


class Attack(ABC):
    """A reconstruction attack by the untrusted party: honest but curious, or, with an ``impostor``, active.

    ``version`` is part of a cell's identity: raise it when a change may change the attack's numbers.
    """

    version: ClassVar[int] = 1
    needs: ClassVar[frozenset[Observable]] = frozenset()

    def fit(self, public: Public) -> None:
        """Take in public knowledge; called once before the views of a cell.

        Raises:
            NotApplicableError: when the public parameters or the model rule the attack out.
        """
        self.public = public

    def impostor(self, public: Public) -> Impostor | None:
        """Who takes the honest provider's place, for an active attack; None, as here, for one that only looks on.

        Args:
            public: as ``fit`` takes it in.
        """
        return None

    @abstractmethod
    def recover(self, view: AdversaryView, rng: np.random.Generator) -> Guess:
        """Reconstruct one prompt from one view; never sees the secret or the defense object."""
