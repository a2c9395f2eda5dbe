"""CusText: each token has a small set of outputs of its own (Chen et al., Findings ACL 2023, arXiv 2207.01193)."""

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from smd_research.core.errors import ConfigError
from smd_research.core.guarantee import Guarantee
from smd_research.mechanisms.privacy.embedding_space import EmbeddingSpace, Floats, Ids
from smd_research.mechanisms.privacy.normalisers import log_sums
from smd_research.mechanisms.privacy.token_channel import FiniteChannel, drawn_columns

Mapping = Literal["partition", "own"]
MAPPINGS: tuple[Mapping, ...] = get_args(Mapping)
_ROWS = 256
_NOBODY = -1


def partition(space: EmbeddingSpace, frequencies: npt.ArrayLike, size: int) -> Ids:
    """The conservative mapping: the most frequent token that is left takes its nearest ``size - 1`` that are left.

    Fewer than ``size`` at the end join the last set, so that no token hides among fewer.

    Args:
        space: the metric space.
        frequencies: ``[V]`` counts of a *public* corpus.
        size: ``K``, members of a set.

    Returns:
        The members of each private token's set, as columns among the private tokens, ``[P, M]``; -1 fills up.
    """
    private = len(space.private_ids)
    counts = np.asarray(frequencies, dtype=np.float64)[space.private_ids]
    left, sets = np.argsort(-counts, kind="stable"), []
    while len(left) >= 2 * size:
        offsets = space.private_rows[left] - space.private_rows[left[0]]
        squares = np.einsum("pd,pd->p", offsets, offsets)
        squares[0] = -1.0  # a twin's row is as near as its own
        taken = np.zeros(len(left), dtype=bool)
        taken[np.argpartition(squares, size - 1)[:size]] = True
        sets.append(left[taken])
        left = left[~taken]
    sets.append(left)
    members = np.full((private, max(map(len, sets))), _NOBODY, dtype=np.int64)
    for one in sets:
        members[one, : len(one)] = np.sort(one)
    return members


@dataclass(frozen=True, eq=False)
class CustomisedChannel(FiniteChannel):
    """The exponential mechanism within a set of outputs, over similarity that is scaled to [0, 1] in each input's set.

    ``log p(y|x) = epsilon/2 * u(x, y) - log sum``; whatever epsilon, which set a token is in is told exactly.

    Attributes:
        size: ``K``, members of a set.
    """

    size: int = 20

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 2 <= self.size <= len(self.space.private_ids):
            raise ConfigError(
                f"defense.set_size={self.size} is out of range: a set has 2 to {len(self.space.private_ids)} of this "
                "vocabulary's private tokens"
            )

    @abstractmethod
    def members(self, ids: Ids) -> Ids:
        """Possible outputs of private tokens ``[n]``, as columns among the private tokens ``[n, M]``; -1 fills up."""

    def law(self, ids: Ids) -> tuple[Ids, Floats]:
        """Outputs of private tokens ``[n]`` and ``log p(y|x)`` of each, both ``[n, M]``."""
        members = self.members(ids)
        logs = 0.5 * self.epsilon * similarities(self.space, ids, members)
        logs -= log_sums(logs.copy())[:, None]
        return members, logs

    def sample(self, ids: npt.ArrayLike, rng: np.random.Generator) -> Ids:
        array = self.space.check(ids)
        sanitised, uniforms = array.copy(), rng.random(len(array))
        private = np.flatnonzero(self.space.is_private[array])
        distinct, inverse = np.unique(array[private], return_inverse=True)
        members, logs = self.law(distinct)
        places = drawn_columns(lambda rows: logs[rows], inverse, uniforms[private], _in_blocks)
        sanitised[private] = self.space.private_ids[members[inverse, places]]
        return sanitised

    def survival(self, ids: npt.ArrayLike) -> Floats:
        array = self.space.check(ids)
        share = np.ones(len(array))
        private = np.flatnonzero(self.space.is_private[array])
        members, logs = self.law(array[private])
        own = members == self.space.column[array[private]][:, None]
        share[private] = np.exp(np.where(own, logs, -np.inf)).sum(axis=1)
        return share

    def log_prob(self, ids: npt.ArrayLike) -> Floats:
        array = self.space.check(ids)
        full = np.full((len(array), self.vocab_size), -np.inf)
        private = np.flatnonzero(self.space.is_private[array])
        members, logs = self.law(array[private])
        rows, places = np.nonzero(members != _NOBODY)
        full[private[rows], self.space.private_ids[members[rows, places]]] = logs[rows, places]
        public = np.flatnonzero(~self.space.is_private[array])
        full[public, array[public]] = 0.0
        return full

    def log_likelihood(self, observed: npt.ArrayLike) -> Floats:
        array = self.space.check(observed)
        members, logs = self._whole_law
        full = np.full((len(array), self.vocab_size), -np.inf)
        for position, output in enumerate(array):
            if self.space.is_private[output]:
                rows, places = np.nonzero(members == self.space.column[output])
                full[position, self.space.private_ids[rows]] = logs[rows, places]
            else:
                full[position, output] = 0.0
        return full

    @cached_property
    def _whole_law(self) -> tuple[Ids, Floats]:
        return self.law(self.space.private_ids)


@dataclass(frozen=True, eq=False)
class SharedSetsChannel(CustomisedChannel):
    """CusText's conservative mapping: the vocabulary in sets, all members of which have the set as outputs.

    Attributes:
        sets: as :func:`partition` returns them.
    """

    sets: Ids = field(default_factory=lambda: np.empty((0, 0), dtype=np.int64))

    def members(self, ids: Ids) -> Ids:
        found: Ids = self.sets[self.space.column[ids]]
        return found

    def guarantee(self) -> Guarantee:
        return Guarantee(
            notion="LDP within a set",
            unit="token of a set",
            epsilon=self.epsilon,
            adjacency="replacement by a token of the same set; prompts of equal length",
            composition=(
                f"a prompt of n tokens n*{self.epsilon:.4g} against prompts whose tokens come from the same sets; "
                "infinite across sets"
            ),
            unit_epsilon=None,
            support=f"the {self.size} tokens or more of the input's set, the same for all of them; sets are disjoint",
            assumptions="public embedding table, vocabulary and sets; which set a token is in is not hidden",
            verified="exact: log ratios within sets, supports across them (mechanisms.channel_audit)",
            source="CusText, Chen et al., Findings ACL 2023, conservative mapping",
        )


class OwnListsChannel(CustomisedChannel):
    """CusText's aggressive mapping: each token has its own nearest ``K`` as outputs. Nothing bounds a replacement."""

    def members(self, ids: Ids) -> Ids:
        found = np.empty((len(ids), self.size), dtype=np.int64)
        for part in self.space.chunks(len(ids)):
            distances = self.space.distances(ids[part])
            distances[np.arange(len(distances)), self.space.column[ids[part]]] = -1.0
            found[part] = np.argpartition(distances, self.size - 1, axis=1)[:, : self.size]
        return found

    def guarantee(self) -> Guarantee:
        return Guarantee(
            notion="heuristic",
            unit="token",
            epsilon=self.epsilon,
            composition="no bound: the lists of two tokens differ, and an output outside one of them tells them apart",
            unit_epsilon=None,
            support=f"the {self.size} nearest tokens of each input, which differ from input to input",
            assumptions="public embedding table and vocabulary",
            verified="exact: supports compared over all pairs (mechanisms.channel_audit)",
            source="CusText, Chen et al., Findings ACL 2023, aggressive mapping",
        )


def similarities(space: EmbeddingSpace, ids: Ids, members: Ids) -> Floats:
    """``u(x, y)``: 1 for the nearest member, 0 for the farthest, ``-inf`` where there is none; ``[n, M]``."""
    found = np.empty(members.shape)
    for part in _in_blocks(len(ids)):
        here = members[part]
        offsets = space.private_rows[here] - space.rows[ids[part]][:, None]
        distances = np.sqrt(np.einsum("nmd,nmd->nm", offsets, offsets))
        absent = here == _NOBODY
        nearest = np.where(absent, np.inf, distances).min(axis=1, keepdims=True)
        farthest = np.where(absent, -np.inf, distances).max(axis=1, keepdims=True)
        spread = np.where(farthest > nearest, farthest - nearest, 1.0)
        found[part] = np.where(absent, -np.inf, 1.0 - (distances - nearest) / spread)
    return found


def _in_blocks(n: int) -> Iterator[slice]:
    for start in range(0, n, _ROWS):
        yield slice(start, min(n, start + _ROWS))
