"""SanText+: the exponential mechanism for rare words, most of the others kept (Yue et al., Findings ACL 2021, §4.2)."""

import math
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from smd_research.core.errors import ConfigError
from smd_research.core.guarantee import Guarantee
from smd_research.mechanisms.privacy.embedding_space import EmbeddingSpace, Floats, Ids
from smd_research.mechanisms.privacy.normalisers import Likelihood, Normalisers, log_sums
from smd_research.mechanisms.privacy.token_channel import FiniteChannel, drawn_columns


def rarest(space: EmbeddingSpace, frequencies: npt.ArrayLike, share: float) -> Ids:
    """The least frequent share of the private tokens, ascending; of equally frequent ones those of higher id.

    Args:
        space: the metric space.
        frequencies: ``[V]`` counts of a *public* corpus.
        share: of private tokens, above 0 and at most 1; two tokens at least.
    """
    counts = np.asarray(frequencies, dtype=np.float64)[space.private_ids]
    size = max(2, round(share * len(counts)))
    order = np.argsort(-counts, kind="stable")
    return np.sort(space.private_ids[order[len(counts) - size :]])


@dataclass(frozen=True, eq=False)
class SensitiveWordsChannel(FiniteChannel):
    """Sensitive tokens become sensitive tokens as under SanText; others pass, or with probability ``p`` become one too.

    Attributes:
        sensitive_ids: ``[S]`` ids that are protected, ascending.
        resampled: ``p``, above 0 and at most 1.
    """

    sensitive_ids: Ids = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    resampled: float = 0.3

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.resampled <= 1:
            raise ConfigError(f"resampled={self.resampled:g} is out of range: it is above 0 and at most 1")
        if len(self.sensitive_ids) < 2 or not self.space.is_private[self.sensitive_ids].all():
            raise ConfigError("santext_plus needs at least two sensitive tokens, all of them private")

    @cached_property
    def outputs(self) -> EmbeddingSpace:
        """The space whose private tokens are the sensitive ones."""
        return EmbeddingSpace(self.space.rows, self.sensitive_ids, self.space.scale)

    @cached_property
    def is_kept(self) -> npt.NDArray[np.bool_]:
        """Private tokens that are not sensitive, ``[V]``."""
        return self.space.is_private & ~self.outputs.is_private

    def sample(self, ids: npt.ArrayLike, rng: np.random.Generator) -> Ids:
        array = self.space.check(ids)
        sanitised, passes, uniforms = array.copy(), rng.random(len(array)), rng.random(len(array))
        drawn = self.outputs.is_private[array] | (self.is_kept[array] & (passes < self.resampled))
        columns = drawn_columns(self._from_peak, array[drawn], uniforms[drawn], self.outputs.chunks)
        sanitised[drawn] = self.sensitive_ids[columns]
        return sanitised

    def survival(self, ids: npt.ArrayLike) -> Floats:
        array = self.space.check(ids)
        share = np.where(self.is_kept[array], 1.0 - self.resampled, 1.0)
        sensitive = np.flatnonzero(self.outputs.is_private[array])
        for part in self.outputs.chunks(len(sensitive)):
            share[sensitive[part]] = np.exp(-log_sums(self._scores(array[sensitive[part]])))
        return share

    def log_prob(self, ids: npt.ArrayLike) -> Floats:
        array = self.space.check(ids)
        full = np.full((len(array), self.vocab_size), -np.inf)
        scores = self._scores(array)
        scores += self._log_share(array)[:, None] - log_sums(scores.copy())[:, None]
        full[:, self.sensitive_ids] = scores
        full[~self.space.is_private[array]] = -np.inf
        own = self._log_own(array)
        same = np.flatnonzero(~self.outputs.is_private[array])
        full[same, array[same]] = own[same]
        return full

    def log_likelihood(self, observed: npt.ArrayLike) -> Floats:
        likelihood = self.likelihood(observed)
        likelihood.settle(self.space.private_ids)
        return np.array([likelihood.row(position) for position in range(len(likelihood))])

    def likelihood(self, observed: npt.ArrayLike) -> Likelihood:
        array = self.space.check(observed)
        scores = np.full((len(array), self.vocab_size), -np.inf)
        sensitive = self.outputs.is_private[array]
        private = self.space.private_ids
        columns = -0.5 * self.epsilon * self.space.distances(array[sensitive]) + self._log_share(private)
        scores[np.ix_(sensitive, private)] = columns
        same = np.flatnonzero(~sensitive)
        self._normalisers.settle(array[same])
        # what passed is certain: the normaliser, which is subtracted from all inputs alike, is added here
        scores[same, array[same]] = self._log_own(array[same]) + self._normalisers.values[array[same]]
        return Likelihood(scores, self._normalisers)

    def guarantee(self) -> Guarantee:
        among = self.epsilon * self.outputs.diameter_bound
        return Guarantee(
            notion="utility-optimised metric-DP",
            unit="sensitive token and unit of distance",
            epsilon=self.epsilon,
            metric=f"Euclidean distance of {self.space.scale} embedding rows",
            adjacency="replacement of a sensitive token by a sensitive one; prompts of equal length",
            composition=(
                f"kept words are unprotected: {len(self.space.private_ids) - len(self.sensitive_ids)} of "
                f"{len(self.space.private_ids)} tokens pass with probability {1 - self.resampled:g} and are then told "
                f"for certain; among sensitive ones at most {among:.4g} a token"
            ),
            unit_epsilon=None,
            support="the sensitive tokens, and for a word that is not sensitive itself",
            assumptions=(
                f"the sensitive set is public: the {len(self.sensitive_ids)} least frequent of a public corpus; "
                "against a word that is not sensitive, an output in the set costs ln(1/p) = "
                f"{-math.log(self.resampled):.3g} more"
            ),
            verified="exact: log-ratio bound over the full probability matrix (mechanisms.channel_audit)",
            source="SanText+, Yue et al., Findings ACL 2021",
        )

    @cached_property
    def _normalisers(self) -> Normalisers:
        """``log sum_y exp(-epsilon/2 * d(x, y))`` over the sensitive outputs; its lower bound is Jensen's."""
        rows, inside = self.space.private_rows, self.outputs.private_rows
        centre = inside.mean(axis=0)
        squares = np.einsum("pd,pd->p", rows, rows) - 2.0 * (rows @ centre) + float((inside**2).sum(axis=1).mean())
        least = np.zeros(self.vocab_size)
        far = 0.5 * self.epsilon * np.sqrt(np.maximum(squares, 0.0))
        least[self.space.private_ids] = math.log(len(inside)) - far
        return Normalisers(least, ~self.space.is_private, self._log_normalisers)

    def _log_normalisers(self, ids: Ids) -> Floats:
        found = np.empty(len(ids))
        for part in self.outputs.chunks(len(ids)):
            found[part] = log_sums(self._scores(ids[part]))
        return found

    def _log_share(self, ids: Ids) -> Floats:
        """Log probability of not passing, ``[n]``."""
        return np.where(self.is_kept[ids], math.log(self.resampled), 0.0)

    def _log_own(self, ids: Ids) -> Floats:
        """Log probability of passing, for tokens that are not sensitive ``[n]``."""
        passing = math.log1p(-self.resampled) if self.resampled < 1 else -math.inf
        return np.where(self.is_kept[ids], passing, 0.0)

    def _scores(self, ids: Ids) -> Floats:
        """Unnormalised log probabilities over the sensitive tokens, ``[n, S]``."""
        scores = self.outputs.distances(ids)
        scores *= -0.5 * self.epsilon
        return scores

    def _from_peak(self, ids: Ids) -> Floats:
        """The same with each row's largest at 0: a word that is not sensitive has none of its own there."""
        scores = self._scores(ids)
        scores -= scores.max(axis=1, keepdims=True)
        return scores
