"""What a bench measures: two ways of doing the same work."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """How a bench is run.

    Attributes:
        repeats: measurements of each side.
        threads: torch threads of each party.
        device: where models run.
        seed: root of every random choice.
    """

    repeats: int = 9
    threads: int = 1
    device: str = "cpu"
    seed: int = 0


@dataclass(frozen=True)
class Case:
    """Two sides measured alternately, so that a busy machine slows both.

    Attributes:
        name: ``<model> [key=value ...] <a>/<b>``, for example ``100m users=1 smd/none``.
        value: measures the side in question once and returns the result in ``unit``.
        baseline: the same of the other side.
        unit: for example ``ms/token``.
        repeats: measurements of each side; None takes the settings' number.
        warmup: uncounted measurements of each side before.
    """

    name: str
    value: Callable[[], float]
    baseline: Callable[[], float]
    unit: str
    repeats: int | None = None
    warmup: int = 1
