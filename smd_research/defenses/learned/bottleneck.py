"""Information bottleneck: the client learns a noisy code of its states that says little more than the answer needs.

The variational form (Alemi et al., ICLR 2017, arXiv 1612.00410): a Gaussian whose mean and deviation are learned, and
its divergence from a fixed prior as the price of what it says. The price bounds what a row tells *on average over
public text*, which no single text can be held to: it is no guarantee.
"""

import math
from dataclasses import dataclass

from torch import Tensor

from smd_research.core.errors import ConfigError
from smd_research.defenses.learned.base import Learned
from smd_research.defenses.learned.lessons import Lesson, Penalty, Schedule, StatesOfText
from smd_research.mechanisms.releases import BottleneckRelease


class Price(Penalty):
    """What the code says, priced.

    Args:
        release: the code.
        beta: its price a nat.
    """

    def __init__(self, release: BottleneckRelease, beta: float) -> None:
        super().__init__()
        self._release, self._beta = (release,), beta  # in a tuple, which registers nothing

    def forward(self, states: Tensor, sent: Tensor, ids: Tensor) -> Tensor:
        """Beta times the mean divergence of a row's law from the prior, nats."""
        return self._beta * self._release[0].divergence(states).mean()


@dataclass(frozen=True)
class BottleneckLesson(Lesson):
    """Options of the bottleneck.

    Attributes:
        beta: price of a nat that a row says.
    """

    beta: float

    def begin(self, sample: StatesOfText) -> tuple[BottleneckRelease, Penalty]:
        """States as they are with a little noise."""
        release = BottleneckRelease(sample.moments)
        return release, Price(release, self.beta)


class InformationBottleneck(Learned):
    """A variational information bottleneck at the cut, which samples at serving. No guarantee.

    Args:
        layer: how many blocks the client runs; 0 sends embeddings.
        beta: see ``BottleneckLesson``.
        steps: see ``lessons.Schedule``, as for the next three.
        batch: rows of a step.
        row_tokens: tokens of a row.
        learning_rate: peak.
        wire_dtype: type in which states cross.

    Raises:
        ConfigError: for a value out of range.
    """

    def __init__(
        self,
        layer: int = 1,
        beta: float = 1e-3,
        steps: int = 120,
        batch: int = 4,
        row_tokens: int = 64,
        learning_rate: float = 2e-3,
        wire_dtype: str = "fp32",
    ) -> None:
        if not 0 <= beta < math.inf:
            raise ConfigError(f"defense.beta={beta:g} is out of range: it is 0 or more, and finite")
        super().__init__(layer, Schedule(steps, batch, row_tokens, learning_rate), wire_dtype)
        self._lesson = BottleneckLesson(float(beta))

    @property
    def lesson(self) -> BottleneckLesson:
        """What the client learns."""
        return self._lesson
