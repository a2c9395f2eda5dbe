"""What settings leak and keep: the strongest attack on each, those that no other beats, and utility at a given leak."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from smd_research.metrics import CARDS
from smd_research.reports.batteries import is_baseline
from smd_research.reports.points import Point, Series, rest


@dataclass(frozen=True)
class Setting:
    """What one setting leaks and keeps.

    Attributes:
        leak: what the strongest attack finds.
        utility: what is kept.
        tested: whether any attack that reads the protocol was tried; else its leak is chance, and says nothing.
    """

    leak: Point
    utility: Point
    tested: bool = True

    @property
    def place(self) -> tuple[float, float]:
        """Leak and utility."""
        return self.leak.value, self.utility.value

    @property
    def gain(self) -> float:
        """The utility, its sign turned where less is better."""
        card = CARDS.get(self.utility.quantity)
        return -self.utility.value if card and card.better == "lower" else self.utility.value


@dataclass(frozen=True)
class AtLeak:
    """The utility of a family at one leak.

    Attributes:
        utility: read off, with the interval read off the same way.
        ids: the cells between which it lies.
        bound: whether every setting leaks less: then the family keeps that much, and may keep more.
    """

    utility: Point
    ids: tuple[str, ...]
    bound: bool = False


def paired(found: Sequence[Point], leak: str, utility: str) -> list[Setting]:
    """Settings with both figures; of those that differ in the attack alone, the one whose attack finds most."""
    kept = {point.id: point for point in Series(utility).points(found)}
    attacked: dict[object, list[Point]] = defaultdict(list)
    for point in Series(leak).points(found):
        if point.id in kept:
            attacked[rest(point, ["attack"])].append(point)
    made = []
    for tries in attacked.values():
        best = max(reversed(tries), key=lambda one: one.value)
        tested = any(not is_baseline(str(one.labels.get("attack", ""))) for one in tries)
        made.append(Setting(best, kept[best.id], tested))
    return made


def undominated(settings: Sequence[Setting]) -> list[Setting]:
    """Settings that no other one equals or beats on both and beats on one, the least leak first."""
    best: list[Setting] = []
    for one in sorted(settings, key=lambda each: (each.leak.value, -each.gain)):
        if not best or one.gain > best[-1].gain:
            best.append(one)
    return best


def utility_at(settings: Sequence[Setting], level: float) -> AtLeak | None:
    """The best utility at a leak of at most ``level``, on straight lines between the settings that no other beats.

    A point of such a line can be had: whoever serves a share of the prompts with one setting and the rest with the next
    gets that mean of both. Nothing is extrapolated: None where every setting leaks more, a bound where all leak less.
    The interval lies between the ends of the two settings' own; that of the leak does not count.
    """
    best = undominated(settings)
    below = [one for one in best if one.leak.value <= level]
    if not below:
        return None
    last, above = below[-1], best[len(below) :]
    if not above or last.leak.value == level:
        bound = level > max(one.leak.value for one in settings)
        return AtLeak(last.utility, (last.leak.id,), bound)
    after = above[0]
    share = (level - last.leak.value) / (after.leak.value - last.leak.value)
    one, other = last.utility, after.utility
    value, low, high = (
        (1 - share) * a + share * b for a, b in ((one.value, other.value), (one.low, other.low), (one.high, other.high))
    )
    between = replace(one, value=value, low=low, high=high, n=min(one.n, other.n))
    return AtLeak(between, (one.id, other.id))
