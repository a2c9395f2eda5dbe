"""A model under a substitution, its tables shaken or not, and views of encoded text: what the keyed attacks look at."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from attacks.base import Public
from smd_research.boundary import AdversaryView, Direction
from smd_research.boundary.messages import PromptIds, token_tensor
from smd_research.core.guess import MappingGuess
from smd_research.core.observable import Observable
from smd_research.core.seeds import generator
from smd_research.models.bundle import Bundle
from smd_research.models.tables import with_tables

SHOWS = frozenset({Observable.ENCODED_IDS, Observable.SHAKEN_WEIGHTS, Observable.OUTPUT_TOKENS, Observable.LENGTH})


@dataclass(frozen=True)
class Keyed:
    """A substitution and what the cloud knows.

    Attributes:
        truth: the plain id of each cipher id ``[V]``.
        public: as an attack takes it in.
    """

    truth: NDArray[np.int64]
    public: Public

    def view(self, ids: Sequence[int] | NDArray[np.int64], outputs: Sequence[int] = ()) -> AdversaryView:
        """What the cloud sees of one prompt of plain ``ids``."""
        cipher = np.argsort(self.truth)
        message = PromptIds(token_tensor(cipher[np.asarray(ids)].tolist()), 4)
        encoded = tuple(int(cipher[i]) for i in outputs)
        return AdversaryView(((Direction.TO_UNTRUSTED, message),), SHOWS, len(ids), (encoded,))

    def recovered(self, found: MappingGuess) -> float:
        """Share of all cipher ids that are mapped right."""
        return float((found.mapping == self.truth).mean())


def keyed(
    bundle: Bundle,
    corpus: Sequence[Sequence[int]] = (),
    noise: float = 0.0,
    inflate: float = 0.0,
    table: NDArray[np.float64] | None = None,
    seed: int = 0,
) -> Keyed:
    """A bundle under a random substitution that spares special ids, its input table inflated and under fixed noise."""
    rng = generator(seed, "keyed")
    truth = np.arange(bundle.geometry.vocab)
    movable = np.setdiff1d(truth, sorted(bundle.special_ids))
    truth[movable] = rng.permutation(movable)
    rows = bundle.embedding.double().numpy() if table is None else table
    changed = rows * (1 + inflate * rng.uniform(-1, 1, rows.shape[1])) + noise * rows.std() * rng.standard_normal(
        rows.shape
    )
    held = with_tables(bundle, torch.from_numpy(changed[truth]), bundle.embedding[torch.from_numpy(truth)])
    documents = tuple(tuple(int(i) for i in document) for document in corpus)
    return Keyed(truth, Public(held, "shaking", (), documents, base=bundle))


def without_base(one: Keyed) -> Public:
    """The same where the public model is not known."""
    return replace(one.public, base=None)
