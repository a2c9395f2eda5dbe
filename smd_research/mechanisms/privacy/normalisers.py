"""Normalisers of a law over a whole vocabulary, each of which costs a row of distances: exact only where asked for."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from smd_research.mechanisms.privacy.embedding_space import Floats, Ids

# How far rounding may lift a bound above the number that it bounds.
_ROUNDING = 1e-9


def log_sums(scores: Floats) -> Floats:
    """``log sum_y exp(scores[x, y])`` of each row ``[n]``; ``scores [n, P]`` is used up, so that no copy is made."""
    peaks = scores.max(axis=1, keepdims=True)
    scores -= peaks
    np.exp(scores, out=scores)
    found: Floats = np.log(scores.sum(axis=1)) + peaks[:, 0]
    return found


class Normalisers:
    """``log sum_y exp(score(x, y))`` for every input ``x``: exact where settled, elsewhere a lower bound.

    Args:
        least: lower bounds ``[V]``; they are exact for inputs that are settled.
        settled: inputs that are ``[V]``.
        exact: computes those of some inputs, ``[n]`` for ids ``[n]``.
    """

    def __init__(self, least: Floats, settled: npt.NDArray[np.bool_], exact: Callable[[Ids], Floats]) -> None:
        self.values = np.where(settled, least, least - _ROUNDING)
        self.settled = settled.copy()
        self._exact = exact

    def settle(self, inputs: Ids) -> None:
        """Make those of these inputs exact."""
        fresh = np.unique(inputs[~self.settled[inputs]])
        if len(fresh):
            self.values[fresh] = self._exact(fresh)
            self.settled[fresh] = True


class Likelihood:
    """``log p(y|x)`` of outputs that were seen, for every input: exact where settled, elsewhere an upper bound.

    An attacker who looks for the likeliest inputs settles those whose bound could still win, which are few.

    Args:
        scores: ``[n, V]``, without the normaliser; ``-inf`` where impossible.
        normalisers: of the channel; what is settled stays so for the next outputs.
    """

    def __init__(self, scores: Floats, normalisers: Normalisers) -> None:
        self._scores = scores
        self._normalisers = normalisers

    def __len__(self) -> int:
        return len(self._scores)

    def row(self, position: int) -> Floats:
        """``log p(y|x)`` of one output for every input, or its bound ``[V]``."""
        found: Floats = self._scores[position] - self._normalisers.values
        return found

    @property
    def settled(self) -> npt.NDArray[np.bool_]:
        """Inputs for which it is exact, ``[V]``."""
        return self._normalisers.settled

    def settle(self, inputs: Ids) -> None:
        """Make it exact for these inputs."""
        self._normalisers.settle(inputs)
