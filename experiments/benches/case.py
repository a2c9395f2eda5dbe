"""What a bench measures: two or more ways of doing the same work."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

Label = str | int | float
Size = Literal["small", "full"]


@dataclass(frozen=True)
class Settings:
    """How a bench is run.

    Attributes:
        repeats: measurements of each side.
        threads: torch threads of each party.
        device: where models run.
        seed: root of every random choice.
        size: ``small`` fits an hour on two cores, ``full`` a night or an accelerator.
        only: cases whose name contains it are measured; empty: all.
    """

    repeats: int = 9
    threads: int = 1
    device: str = "cpu"
    seed: int = 0
    size: Size = "small"
    only: str = ""

    def wants(self, name: str) -> bool:
        """Whether a case is asked for; to be asked before its parties are started."""
        return self.only in name


@dataclass(frozen=True)
class Measured:
    """One measurement with what came along: the seconds of each stage, bytes, peak memory.

    Attributes:
        value: in the unit of the case.
        extra: further figures by name; their unit is part of the name, e.g. ``peak_mb`` or ``merge_ms``.
        labels: what was found out in words, beside the labels of the case.
    """

    value: float
    extra: Mapping[str, float] = field(default_factory=dict)
    labels: Mapping[str, Label] = field(default_factory=dict)


Side = Callable[[], float | Measured]
"""Measures one way of doing the work once."""


@dataclass(frozen=True)
class Case:
    """Two sides measured alternately, so that a busy machine slows both.

    Attributes:
        name: ``<model> [key=value ...] <a>/<b>``, for example ``100m users=1 smd/none``.
        value: measures the side in question once and returns the result in ``unit``.
        baseline: the same of the other side; None where there is nothing to compare with.
        unit: for example ``ms/token``.
        repeats: measurements of each side; None takes the settings' number.
        warmup: uncounted measurements of each side before.
        labels: what a table shows as columns, e.g. ``{"model": "100m", "users": 8}``.
    """

    name: str
    value: Side
    baseline: Side | None
    unit: str
    repeats: int | None = None
    warmup: int = 1
    labels: Mapping[str, Label] = field(default_factory=dict)


@dataclass(frozen=True)
class Modes:
    """Several ways of doing the same work, all interleaved; each leaves a row beside the first.

    Attributes:
        name: ``<model> [key=value ...]``; the mode is added to it.
        modes: what measures each mode once; the first is the baseline of the others.
        unit: for example ``ms/token``.
        repeats: measurements of each mode; None takes the settings' number.
        warmup: uncounted measurements of each mode before.
        labels: as those of a case; ``mode`` is added.
    """

    name: str
    modes: Mapping[str, Side]
    unit: str
    repeats: int | None = None
    warmup: int = 1
    labels: Mapping[str, Label] = field(default_factory=dict)
