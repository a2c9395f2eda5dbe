"""Every metric a record may hold, gathered from the modules whose functions compute them."""

import importlib
import pkgutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType

from smd_research.metrics.card import Card
from smd_research.metrics.estimate import Estimate, aggregate

_FIRST = ("privacy", "streams", "restoration", "exposure", "weight_leaks", "tuning", "effort", "utility", "cost")
"""The order in which tables show metrics; the cards of a module that is not named here come last."""


def gather() -> dict[str, Card]:
    """Collect the cards of all modules of this package by name.

    Raises:
        ValueError: when two cards have one name.
    """
    here = Path(__file__)
    names = [module.name for module in pkgutil.iter_modules([str(here.parent)]) if module.name != here.stem]
    names.sort(key=lambda name: (_FIRST.index(name) if name in _FIRST else len(_FIRST), name))
    found: dict[str, Card] = {}
    for name in names:
        for card in find_cards(importlib.import_module(f"{__package__}.{name}")):
            if card.name in found:
                raise ValueError(f"two metrics are named {card.name}: the second one in {name}.py")
            found[card.name] = card
    return found


def find_cards(module: ModuleType) -> Iterator[Card]:
    """Find the cards that a module names, alone or in tuples, in the order in which they stand there."""
    for value in vars(module).values():
        if isinstance(value, Card):
            yield value
        elif isinstance(value, tuple):
            yield from (card for card in value if isinstance(card, Card))


CARDS: dict[str, Card] = gather()
"""Every metric a record may hold, by name."""

SCORES = 2
"""The version of the way from per-prompt results to numbers: raised whenever a control, a score or an interval changes.

1 took the next prompt as a control and Wilson's or Student's interval; 2 takes all prompts of the stratum and Gaffke's.
"""


def summarise(name: str, values: Iterable[float | bool | None]) -> Estimate:
    """Average the per-prompt values of a named metric the way its card says.

    Raises:
        KeyError: for a metric without a card.
    """
    return aggregate(values, CARDS[name].scale)
