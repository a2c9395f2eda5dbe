"""What noisy states say of hypotheses, where each row was noised by itself and where the message was scaled as one."""

from typing import Protocol

import torch
from torch import Tensor

from smd_research.mechanisms.privacy.vector_likelihood import Likelihood


class NoisyEvidence(Protocol):
    """Log likelihood of a beam of hypotheses, row by row."""

    def gain(self, states: Tensor, observed: Tensor) -> Tensor:
        """What the next row adds for each candidate ``[beam, candidates]``.

        Args:
            states: of the candidates ``[beam, candidates, width]``, or ``[1, ...]`` where all hypotheses have the same.
            observed: the row seen ``[width]``.
        """
        ...

    def keep(self, parents: Tensor, columns: Tensor) -> None:
        """Carry on with these candidates ``columns`` of these hypotheses ``parents``, both ``[beam]``."""
        ...

    @property
    def misfit(self) -> float:
        """How far the best hypothesis's best candidate of the last row is off, in multiples of what noise explains."""
        ...


class RowEvidence:
    """Rows noised by themselves: likelihoods add up.

    Args:
        likelihood: of one row.
    """

    def __init__(self, likelihood: Likelihood) -> None:
        self._likelihood = likelihood

    def gain(self, states: Tensor, observed: Tensor) -> Tensor:
        """See ``NoisyEvidence``."""
        return self._likelihood(states, observed)

    def keep(self, parents: Tensor, columns: Tensor) -> None:
        """Nothing to carry."""

    @property
    def misfit(self) -> float:
        """None that would be told."""
        return 0.0


class ScaledEvidence:
    """A message clipped as a whole: every row is scaled by the same unknown factor, then noised.

    With a Gaussian prior on the factor it is integrated out, which needs two sums over the rows so far: of the states'
    products with what was seen, and of their squares.

    Args:
        sigma: standard deviation of the noise on each coordinate.
        mean: of the factor, as public text has it.
        spread: its standard deviation there.
    """

    def __init__(self, sigma: float, mean: float, spread: float) -> None:
        self._sigma, self._mean, self._spread = sigma, mean, spread
        self._along = self._energy = torch.zeros(1, dtype=torch.float64)
        self._candidates = (self._along, self._energy)
        self._misfit = 0.0

    def gain(self, states: Tensor, observed: Tensor) -> Tensor:
        """See ``NoisyEvidence``."""
        wide = states.double()
        before = [one.to(states.device)[:, None] for one in (self._along, self._energy)]
        products, squares = wide @ observed.double(), (wide**2).sum(-1)
        along, energy = before[0] + products, before[1] + squares
        self._candidates = (along, energy)
        factor = self._factor(along[0], energy[0])
        residual = observed.double().square().sum() - 2 * factor * products[0] + factor**2 * squares[0]
        self._misfit = float(residual.min()) / (len(observed) * self._sigma**2)
        return (self._value(along, energy) - self._value(*before)).float()

    def keep(self, parents: Tensor, columns: Tensor) -> None:
        """See ``NoisyEvidence``."""
        self._along, self._energy = (one[parents, columns] for one in self._candidates)

    @property
    def misfit(self) -> float:
        """See ``NoisyEvidence``."""
        return self._misfit

    def _factor(self, along: Tensor, energy: Tensor) -> Tensor:
        """The factor that these sums make most likely."""
        noise, prior = self._sigma**-2, self._spread**-2
        return (noise * along + prior * self._mean) / (noise * energy + prior)

    def _value(self, along: Tensor, energy: Tensor) -> Tensor:
        """Log marginal likelihood for these sums, but for what all hypotheses have in common."""
        precision = self._sigma**-2 * energy + self._spread**-2
        return (self._factor(along, energy) ** 2 * precision - precision.log()) / 2
