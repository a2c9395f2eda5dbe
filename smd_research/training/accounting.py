"""What a run of DP-SGD costs: the noise that a promise asks for, and the epsilon of the steps that were done.

The mechanism is the Gaussian one on a Poisson sample (Abadi et al., CCS 2016); neighbours are sets of texts of which
one has a text more. Opacus composes its privacy loss numerically (PRV, arXiv 2106.02848), or, where that does not
work, by Renyi orders (RDP), whose epsilon is a tenth to a half larger.
"""

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from importlib.util import find_spec
from typing import Literal

from scipy.optimize import brentq

from smd_research.core.errors import ConfigError

Accountant = Literal["prv", "rdp"]

TOLERANCE = 2e-3
"""Of an epsilon, as a share of it: error of the numerical composition, and width of the search for the noise."""
_ROUGHLY = 0.05  # of an epsilon: where the search begins
LARGEST = 50.0
"""Epsilon beyond which Renyi orders suffice: the grid of the numerical composition grows with it, what it says does not
protect anybody."""


@dataclass(frozen=True)
class Spending:
    """A run of DP-SGD as the accountant sees it.

    Attributes:
        noise_multiplier: standard deviation of the noise on the sum of clipped gradients, in units of the clip.
        rate: probability with which each text is in a step's sample.
        delta: of the promise.
        accountant: who composed the steps.
    """

    noise_multiplier: float
    rate: float
    delta: float
    accountant: Accountant

    def epsilon(self, steps: int) -> float:
        """Epsilon of so many steps."""
        return epsilon_spent(self.noise_multiplier, self.rate, steps, self.delta, self.accountant) if steps else 0.0


def usual_delta(texts: int) -> float:
    """A delta below one in as many as there are texts, half of it at a thousand: ``n ** -1.1``."""
    return 1 / math.pow(max(texts, 2), 1.1)


def check_opacus() -> None:
    """Make sure that the package is there.

    Raises:
        ConfigError: where it is not.
    """
    if find_spec("opacus") is None:
        raise ConfigError("tuning with DP-SGD needs the package opacus: pip install 'smd-research[dp]'")


def epsilon_spent(
    noise_multiplier: float,
    rate: float,
    steps: int,
    delta: float,
    accountant: Accountant = "prv",
    around: float | None = None,
) -> float:
    """Epsilon of steps of DP-SGD, an upper end.

    Args:
        noise_multiplier: see :class:`Spending`.
        rate: of the Poisson sample.
        steps: that were done.
        delta: of the promise.
        accountant: who composes.
        around: about what it is, which says how finely to compose; None: found first.

    Raises:
        ConfigError: without opacus.
    """
    check_opacus()
    from opacus.accountants import create_accountant

    one = create_accountant(accountant)
    one.history = [(noise_multiplier, rate, steps)]
    with _quietly():
        if accountant == "rdp":
            return float(one.get_epsilon(delta))
        about = float(one.get_epsilon(delta)) if around is None else around
        return float(one.get_epsilon(delta, eps_error=max(about * TOLERANCE, 1e-4)))


@cache
def planned_spending(epsilon: float, delta: float, rate: float, steps: int) -> Spending:
    """The least noise with which so many steps keep to ``(epsilon, delta)``.

    Renyi orders, which are quick and ask for too much, bracket the search.

    Args:
        epsilon: above 0.
        delta: between 0 and 1.
        rate: of the Poisson sample, above 0, at most 1.
        steps: of the whole run.

    Raises:
        ConfigError: without opacus, or for a promise that no noise keeps.
    """
    check_opacus()
    from opacus.accountants.utils import get_noise_multiplier

    asked = {"target_epsilon": epsilon, "target_delta": delta, "sample_rate": rate, "steps": steps}
    try:
        with _quietly():
            enough = float(get_noise_multiplier(**asked, epsilon_tolerance=epsilon * _ROUGHLY, accountant="rdp"))
    except (ValueError, ArithmeticError) as error:
        raise ConfigError(
            f"tuning.epsilon={epsilon:g} at delta={delta:g} cannot be kept over {steps} steps at rate {rate:.3g} "
            f"({error}): raise epsilon, or take fewer steps"
        ) from None
    renyi = Spending(enough, rate, delta, "rdp")
    if epsilon > LARGEST:
        return renyi
    try:
        return _least(replace(renyi, accountant="prv"), epsilon, steps)
    except (ValueError, RuntimeError, ArithmeticError, MemoryError):
        return renyi


def _least(enough: Spending, epsilon: float, steps: int) -> Spending:
    """The least noise by numerical composition; epsilon falls with the noise, in logarithms about straight.

    Args:
        enough: more noise than is needed.
        epsilon: of the promise.
        steps: of the run.

    Raises:
        ValueError: where it is not enough.
    """

    def over(log_noise: float) -> float:
        found = epsilon_spent(math.exp(log_noise), enough.rate, steps, enough.delta, around=epsilon)
        return math.log(found / epsilon) + TOLERANCE / 2

    high = math.log(enough.noise_multiplier)
    low = high - math.log(2)
    log_noise = float(brentq(over, low, high, xtol=TOLERANCE / 8))
    found = replace(enough, noise_multiplier=math.exp(log_noise + TOLERANCE / 8))
    if found.epsilon(steps) > epsilon:
        raise ValueError("the search for the noise has not settled")
    return found


@contextmanager
def _quietly() -> Iterator[None]:
    """Opacus remarks on the ends of its search."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
