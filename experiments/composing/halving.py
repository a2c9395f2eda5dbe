"""Successive halving (Jamieson and Talwalkar, AISTATS 2016) over cells: many settings on a short budget, few on a long.

What is looked for leaks least while it stays useful: on every rung all candidates run, those that lose too much against
an unprotected cell come last, the others are ranked by what the attack found, and a share of them goes on.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from experiments.composing.overrides import parse
from smd_research.core.errors import ConfigError

Outcome = Mapping[str, float] | None
"""Metrics of a cell by name; None where it has none (it failed, or may not run)."""


@dataclass(frozen=True)
class Halving:
    """How settings are chosen.

    Attributes:
        rungs: overrides of each rung, the shortest budget first.
        keep: share of the candidates that go on from a rung to the next.
        minimise: metric by which they are ranked: what the attack finds.
        keeping: metric that must stay near that of the unprotected cell.
        slack: how far it may fall below.
        beside: overrides of the unprotected cell.

    Raises:
        ConfigError: without a rung, or for a share or slack out of range.
    """

    rungs: Sequence[str]
    keep: float
    minimise: str
    keeping: str
    slack: float
    beside: str

    def __post_init__(self) -> None:
        if not self.rungs:
            raise ConfigError("halving: give at least one rung")
        if not 0 < self.keep <= 1 or self.slack < 0:
            raise ConfigError("halving: keep is a share above 0, at most 1, and slack is not negative")

    def all(self, candidates: Sequence[Sequence[str]], common: Sequence[str]) -> Iterator[tuple[str, ...]]:
        """The overrides of every cell that may be run, whoever goes on."""
        yield merged(self.beside.split(), common)
        for rung in self.rungs:
            for candidate in candidates:
                yield merged(candidate, rung.split(), common)

    def count(self, candidates: int) -> int:
        """How many cells are run, if none fails."""
        going = [candidates]
        for _ in self.rungs[1:]:
            going.append(math.ceil(self.keep * going[-1]))
        return 1 + sum(going)

    def run(
        self,
        candidates: Sequence[Sequence[str]],
        common: Sequence[str],
        outcomes: Callable[[Sequence[tuple[str, ...]]], Sequence[Outcome]],
    ) -> list[tuple[str, ...]]:
        """Run the rungs.

        Args:
            candidates: overrides of each setting.
            common: overrides that win over all others.
            outcomes: runs some cells, given the overrides of each, in any order or side by side.

        Returns:
            The candidates that go on from the last rung, best first; none where the unprotected cell has no outcome.
        """
        (plain,) = outcomes([merged(self.beside.split(), common)])
        if not plain:
            return []
        going = [tuple(candidate) for candidate in candidates]
        for rung in self.rungs:
            tried = outcomes([merged(candidate, rung.split(), common) for candidate in going])
            found = [(candidate, values) for candidate, values in zip(going, tried, strict=True) if values]
            going = self.survivors(found, plain[self.keeping])
        return going

    def survivors(
        self, found: Sequence[tuple[tuple[str, ...], Mapping[str, float]]], plain: float
    ) -> list[tuple[str, ...]]:
        """The candidates that go on, best first.

        Args:
            found: candidates with their metrics.
            plain: what the unprotected cell reaches in ``keeping``.
        """

        def rank(values: Mapping[str, float]) -> tuple[float, float]:
            return max(0.0, plain - self.slack - values[self.keeping]), values[self.minimise]

        ranked = sorted(found, key=lambda one: rank(one[1]))
        return [candidate for candidate, _ in ranked[: math.ceil(self.keep * len(ranked))]]


def merged(*parts: Sequence[str]) -> tuple[str, ...]:
    """Overrides of several parts, a later one over an earlier of the same key."""
    words = {override.key_or_group: str(override.input_line) for part in parts for override in parse(list(part))}
    return tuple(words.values())
