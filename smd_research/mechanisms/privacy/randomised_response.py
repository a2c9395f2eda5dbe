"""Randomised response: a class is told as it is with a certain probability, else one of the others (Warner, 1965)."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from smd_research.core.claim_audit import ClaimAudit
from smd_research.core.errors import ConfigError
from smd_research.core.guarantee import Guarantee, check_epsilon


@dataclass(frozen=True)
class RandomisedResponse:
    """The k-ary form, whose law is exactly at its bound: no other is more often right at the same epsilon.

    Attributes:
        epsilon: most that the log probability of what is said differs between two classes.
        classes: how many there are.

    Raises:
        ConfigError: for an epsilon that is not positive, or fewer than two classes.
    """

    epsilon: float
    classes: int

    def __post_init__(self) -> None:
        check_epsilon(self.epsilon, "randomised response: epsilon")
        if self.classes < 2:
            raise ConfigError(
                f"randomised response of labels hides one of two classes or more, here are {self.classes}: take a task "
                "with classes, or tuning.label_epsilon=null"
            )

    @property
    def keep(self) -> float:
        """Probability that the class is told as it is: ``e^epsilon / (e^epsilon + k - 1)``."""
        return 1 / (1 + (self.classes - 1) * math.exp(-self.epsilon))

    @property
    def probabilities(self) -> NDArray[np.float64]:
        """Of each answer (column) given each class (row) ``[k, k]``."""
        other = self.keep * math.exp(-self.epsilon)
        return np.full((self.classes, self.classes), other) + np.eye(self.classes) * (self.keep - other)

    def sample(self, label: int, rng: np.random.Generator) -> int:
        """What is told of a class.

        Args:
            label: the class.
            rng: of this text alone.
        """
        if rng.random() < self.keep:
            return label
        return int((label + rng.integers(1, self.classes)) % self.classes)

    def guarantee(self) -> Guarantee:
        """What is promised to each label."""
        return Guarantee(
            notion="local DP of labels",
            unit="label",
            epsilon=self.epsilon,
            adjacency="any two classes of a text",
            composition="one draw a text, the same in every epoch; texts of one user add up",
            unit_epsilon=self.epsilon,
            support="all classes, whatever the label",
            assumptions="the text itself does not tell its class",
            verified="closed form",
            source="Warner 1965; DP-Forward, arXiv 2309.06746, on labels",
        )


def audit_response(response: RandomisedResponse) -> ClaimAudit:
    """The largest log ratio of an answer's probability between two classes, exactly."""
    logs = np.log(response.probabilities)
    measured = float((logs.max(axis=0) - logs.min(axis=0)).max())
    return ClaimAudit(
        "epsilon, between any two classes",
        response.epsilon,
        measured,
        measured <= response.epsilon * (1 + 1e-9),
        "exact, all answers",
        response.classes * (response.classes - 1) // 2,
        differing=0.0,
    )
