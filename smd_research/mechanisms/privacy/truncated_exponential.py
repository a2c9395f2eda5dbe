"""TEM, the truncated exponential mechanism (Carvalho et al., SDM 2023, arXiv 2107.07928)."""

import math
from dataclasses import dataclass

import numpy as np

from smd_research.core.errors import ConfigError
from smd_research.core.guarantee import Guarantee
from smd_research.mechanisms.privacy.embedding_space import Floats, Ids
from smd_research.mechanisms.privacy.token_channel import ExponentialChannel, metric_guarantee


def truncation(epsilon: float, private: int, beta: float) -> float:
    """``gamma``: no farther output is told from another; ``2/epsilon * ln((1 - beta) (P - 1) / beta)``."""
    return 2.0 / epsilon * math.log((1.0 - beta) * (private - 1) / beta)


@dataclass(frozen=True, eq=False)
class TruncatedExponentialChannel(ExponentialChannel):
    """The exponential mechanism over ``min(d, gamma)``: one softmax in the place of the paper's Gumbel noise.

    The paper adds Gumbel noise to the scores of the tokens within ``gamma`` and to one item that stands for all others,
    among which it then draws uniformly; the arg max of Gumbel noise is a softmax draw, so both are one law.
    ``min(d, gamma)`` is a metric, and no larger than ``d``.

    Attributes:
        beta: share of outputs that may lie beyond ``gamma``, below one half.
    """

    beta: float = 0.001

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.beta < 0.5:
            raise ConfigError(f"beta={self.beta:g} is out of range: it lies between 0 and 0.5")

    @property
    def gamma(self) -> float:
        """Where distances are cut off."""
        return truncation(self.epsilon, len(self.space.private_ids), self.beta)

    def guarantee(self) -> Guarantee:
        return metric_guarantee(
            self.space,
            self.epsilon,
            verified="exact: log-ratio bound over the full probability matrix (mechanisms.audit.audit_log_ratio)",
            source="TEM, Carvalho et al., SDM 2023",
            metric=f"Euclidean distance of {{scale}} embedding rows, cut off at {self.gamma:.3g}",
            farthest=min(self.gamma, self.space.diameter_bound),
        )

    def _scores(self, ids: Ids) -> Floats:
        scores = self.space.distances(ids)
        np.minimum(scores, self.gamma, out=scores)
        scores *= -0.5 * self.epsilon
        return scores

    def _least_mean_weight(self) -> Floats:
        return np.maximum(super()._least_mean_weight(), math.exp(-0.5 * self.epsilon * self.gamma))
