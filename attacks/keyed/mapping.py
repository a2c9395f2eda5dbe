"""What the attacks on a secret substitution of token ids have in common: one mapping from all views, then reading.

The substitution is the same in every request, so the attack solves it once from everything that was seen, and reads
each request through what it found.
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from attacks.base import Attack, Public
from smd_research.boundary import AdversaryView
from smd_research.boundary.messages import ClassifyRows, PromptIds, TuningRows
from smd_research.core.errors import NotApplicableError
from smd_research.core.guess import Guess, MappingGuess
from smd_research.core.observable import Observable
from smd_research.models.bundle import Bundle

Ids = NDArray[np.int64]


@dataclass(frozen=True, repr=False, eq=False)
class KnownPairs:
    """Declared side knowledge: cipher ids whose plain ids the adversary knows (planted documents, known templates).

    Attributes:
        cipher: cipher ids ``[m]``.
        plain: the plain id of each ``[m]``.
    """

    cipher: Ids
    plain: Ids

    @classmethod
    def planted(cls, truth: Ids, frequency: NDArray[np.float64], m: int) -> "KnownPairs":
        """What an adversary learns who had a text with the ``m`` most frequent tokens encoded; for the runner.

        Args:
            truth: the plain id of each cipher id ``[V']``, the secret.
            frequency: of each plain id in public text ``[V]``.
            m: how many plain ids; all cipher ids of each (homophones) are told.
        """
        chosen = np.argsort(-frequency, kind="stable")[:m]
        cipher = np.flatnonzero(np.isin(truth, chosen))
        return cls(cipher, truth[cipher])


class MappingAttack(Attack):
    """An attack that looks for the plain id of every cipher id.

    Attributes:
        known: how many pairs it wants to be told (``KnownPairs``) beside the special ids, which never move; the runner
            hands them to ``solve``.
    """

    needs: ClassVar[frozenset[Observable]] = frozenset({Observable.ENCODED_IDS})
    known: int = 0

    @abstractmethod
    def solve(
        self, views: Sequence[AdversaryView], rng: np.random.Generator, known: KnownPairs | None = None
    ) -> MappingGuess:
        """Reconstruct the substitution from the views of all requests and what is public.

        Raises:
            NotApplicableError: when the attack finds that it cannot be run here.
        """

    def recover(self, view: AdversaryView, rng: np.random.Generator) -> Guess:
        """Solve from one view alone and read it."""
        return read(view, self.solve([view], rng))

    @property
    def ciphers(self) -> int:
        """Number of cipher ids ``V'``, at least that of plain ids."""
        return len(self.public.bundle.embedding)

    @property
    def plains(self) -> int:
        """Number of plain ids ``V``."""
        return len((self.public.base or self.public.bundle).embedding)

    def anchors(self, known: KnownPairs | None = None) -> KnownPairs:
        """Special ids, which map to themselves, and the pairs that were told."""
        special = np.array(sorted(i for i in self.public.bundle.special_ids if i < self.ciphers), dtype=np.int64)
        if known is None:
            return KnownPairs(special, special)
        told = ~np.isin(known.cipher, special)
        return KnownPairs(np.append(special, known.cipher[told]), np.append(special, known.plain[told]))


def origin(public: Public) -> Bundle:
    """The public model that the served one was made from.

    Raises:
        NotApplicableError: when none is known.
    """
    if public.base is None:
        raise NotApplicableError("needs the public model that the served one was made from: none is known here")
    return public.base


def ciphertext(views: Sequence[AdversaryView]) -> list[Ids]:
    """All encoded text in the views, one array of cipher ids a text; what was generated follows its prompt."""
    found: list[Ids] = []
    for view in views:
        prompts = [_ids(message.ids) for message in view.of(PromptIds)]
        if len(prompts) == 1:
            prompts = [np.append(prompts[0], np.array(view.output_ids, dtype=np.int64))]
        found += prompts
        for tuned in view.of(TuningRows):
            found += _texts(tuned.ids, tuned.lengths)
        for classified in view.of(ClassifyRows):
            found += _texts(classified.ids, classified.lengths)
    return found


def _texts(ids: Tensor, lengths: Tensor) -> list[Ids]:
    return np.split(_ids(ids), np.cumsum(_ids(lengths))[:-1])


def _ids(tensor: Tensor) -> Ids:
    return tensor.cpu().numpy().astype(np.int64)


def read(view: AdversaryView, found: MappingGuess) -> Guess:
    """The view's prompt through a mapping."""
    prompts = view.of(PromptIds)
    cipher = _ids(prompts[0].ids) if prompts else np.zeros(0, dtype=np.int64)
    inside = (cipher >= 0) & (cipher < len(found.mapping))
    plain = np.where(inside, found.mapping[np.where(inside, cipher, 0)], -1)
    return Guess(tuple(plain.tolist()), certified=found.certified, residual=found.residual, spent=found.spent)
