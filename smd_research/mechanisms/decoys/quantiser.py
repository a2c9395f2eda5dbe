"""Bins of token probabilities, and what a bin of that width is claimed, or found, to give (``quantised_sampling``)."""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from smd_research.core.errors import ConfigError

Metric = Literal["grid", "rel", "abs"]
METRICS: tuple[str, ...] = get_args(Metric)
ABS_OFFSET = 1e-3
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Quantiser:
    """How fakes are drawn; all of it is public.

    Attributes:
        metric: ``grid``, ``rel`` or ``abs``: which bin a token has to share with the secret's.
        epsilon: width of the bin.
        temperature: of the model that judges.
        fakes: how many (the paper's lambda).
        tries: paths drawn for each fake before epsilon is widened.
        widenings: how many steps epsilon may be widened by.
        canonical: take only fakes that the tokenizer itself would write; others are known as fakes by reading the text
            again, unless secrets too are drawn token by token.

    Raises:
        ConfigError: for an unknown metric or a value out of range.
    """

    metric: Metric = "grid"
    epsilon: float = 0.1
    temperature: float = 1.0
    fakes: int = 7
    tries: int = 16
    widenings: int = 4
    canonical: bool = True

    def __post_init__(self) -> None:
        if self.metric not in METRICS:
            raise ConfigError(f"metric={self.metric} is unknown: use one of {', '.join(METRICS)}")
        if not 0 < self.epsilon < 1:
            raise ConfigError(f"epsilon={self.epsilon:g} is out of range: it lies between 0 and 1")
        if self.temperature <= 0:
            raise ConfigError(f"temperature={self.temperature:g} is out of range: it must be positive")
        if self.fakes < 1 or self.tries < 1 or self.widenings < 0:
            raise ConfigError(
                f"fakes={self.fakes}, tries={self.tries}, widenings={self.widenings}: at least 1, 1 and 0"
            )

    @property
    def epsilons(self) -> tuple[float, ...]:
        """Epsilon after ``0 .. widenings`` steps.

        ``abs`` doubles the width of the bin, up to 1. For ``rel`` and ``grid`` a step squares the least ratio
        ``1 - epsilon`` of a fake's probability to the secret's (on the grid: two neighbouring cells become one).
        """
        steps = range(self.widenings + 1)
        if self.metric == "abs":
            return tuple(min(self.epsilon * 2**step, 1.0) for step in steps)
        return tuple(1 - (1 - self.epsilon) ** (2**step) for step in steps)

    def bins(self, log_p: Tensor) -> tuple[Tensor, Tensor]:
        """Bins of the secret's tokens: log probabilities ``(low, high]``, each ``[widenings + 1, refs]``.

        Args:
            log_p: the secret's conditional log probabilities ``[refs]`` (fp64).
        """
        epsilon = torch.tensor(self.epsilons, dtype=log_p.dtype, device=log_p.device)[:, None]
        if self.metric == "abs":
            low = torch.floor(log_p.exp() / epsilon) * epsilon + ABS_OFFSET
            # the released bin is closed below and open above
            return low.log() - _ROUNDING, (low + epsilon).log() - _ROUNDING
        if self.metric == "rel":
            return log_p + (-epsilon).log1p() - _ROUNDING, log_p + epsilon.log1p() + _ROUNDING
        width = (-epsilon).log1p()
        cell = torch.floor(log_p.clamp(max=0) / width)
        return (cell + 1) * width, cell * width

    def weight(self, log_p: Tensor) -> Tensor:
        """Weights of tokens within a bin, given their log probabilities: their probability for ``grid``, else equal."""
        return log_p.exp() if self.metric == "grid" else torch.ones_like(log_p)


@dataclass(frozen=True)
class DecoyParameters:
    """What Prompt Obfuscation publishes besides its sampler (the :class:`Quantiser`).

    Attributes:
        construction: ``full`` or ``multiplexed``: how virtual prompts are prefilled.
        sticky: whether a secret keeps its fakes.
        spans: ``gold`` or ``tagger``: who marks the secrets.
        unmarked: ``whole`` or ``refuse``: what becomes of a prompt without marks.
        requests: how often each prompt is sent.
        secrets: ``given`` by the data or drawn from the sampler's ``law``.
    """

    construction: str
    sticky: bool
    spans: str
    unmarked: str
    requests: int
    secrets: str


def claimed_bound(fakes: int, epsilon: float) -> float:
    """The success rate that PO is said to cap an attacker at: ``1/(lambda+1) + epsilon``."""
    return min(1 / (fakes + 1) + epsilon, 1.0)


def ratio_bound(fakes: int, epsilon: float, tokens: int) -> float:
    """The prior's posterior of the secret where every token's ratio is at least ``1 - epsilon``."""
    return 1 / (1 + fakes * (1 - epsilon) ** tokens)
