"""Tokens without a vector, under a declared policy: much released code sends them on as they are, in silence."""

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from smd_research.core.guarantee import Guarantee
from smd_research.mechanisms.privacy.embedding_space import Floats, Ids
from smd_research.mechanisms.privacy.token_channel import FiniteChannel

Unknown = Literal["public", "uniform", "refuse"]
UNKNOWN: tuple[Unknown, ...] = get_args(Unknown)


@dataclass(frozen=True, eq=False)
class UniformUnknown(FiniteChannel):
    """A channel under which tokens without a vector become any private token, all alike: the outputs of all others.

    Attributes:
        inner: draws for the rest.
        unknown_ids: ``[U]`` tokens without a vector, which ``inner`` holds for public.
    """

    inner: FiniteChannel = field(kw_only=True)
    unknown_ids: Ids = field(kw_only=True)

    @cached_property
    def is_unknown(self) -> npt.NDArray[np.bool_]:
        """Mask over the vocabulary, ``[V]``."""
        mask = np.zeros(self.vocab_size, dtype=bool)
        mask[self.unknown_ids] = True
        return mask

    def sample(self, ids: npt.ArrayLike, rng: np.random.Generator) -> Ids:
        array = self.space.check(ids)
        sanitised = self.inner.sample(array, rng)
        unknown = np.flatnonzero(self.is_unknown[array])
        sanitised[unknown] = rng.choice(self.space.private_ids, size=len(unknown))
        return sanitised

    def survival(self, ids: npt.ArrayLike) -> Floats:
        array = self.space.check(ids)
        share: Floats = np.where(self.is_unknown[array], 0.0, self.inner.survival(array))
        return share

    def log_prob(self, ids: npt.ArrayLike) -> Floats:
        array = self.space.check(ids)
        full = self.inner.log_prob(array)
        full[self.is_unknown[array]] = np.where(self.space.is_private, -np.log(len(self.space.private_ids)), -np.inf)
        return full

    def log_likelihood(self, observed: npt.ArrayLike) -> Floats:
        array = self.space.check(observed)
        full = self.inner.log_likelihood(array)
        private = self.space.is_private[array]
        full[:, self.unknown_ids] = np.where(private, -np.log(len(self.space.private_ids)), -np.inf)[:, None]
        return full

    def guarantee(self) -> Guarantee:
        promised = self.inner.guarantee()
        added = "tokens without a vector become any private token, all alike"
        return replace(promised, assumptions=f"{promised.assumptions}; {added}")
