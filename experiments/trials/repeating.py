"""A published record beside the one that its cell gives here: what must be the same, and what may differ how far.

On the same lock (versions of packages and Python, platform, processor, threads, device) the same prompts give the same
guesses, token by token, and the same scores. Elsewhere arithmetic differs in its last digits, which may turn a token:
there the prompts are the same, and means lie within a tolerance. Times and memory are never compared.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from smd_research.core.quoting import quoted
from smd_research.metrics import CARDS
from smd_research.records import Item, Record, read_items

_OF_A_MACHINE = ("s", "ms", "1/s", "MB")
"""Units of what a machine takes, which two runs never agree on."""

_DIGITS = 1e-6
"""Relative difference of two scores of one sum, taken in another order."""

_NOISE = 1e-4
"""Difference of two amounts that is arithmetic's, where the amounts themselves are next to nothing."""

_LOCK = ("packages", "python", "platform", "torch_threads", "device", "accelerator")


def same_lock(published: Mapping[str, Any], here: Mapping[str, Any]) -> bool:
    """Whether two environments are those of one lock, on one kind of processor."""
    told = [[*(one.get(key) for key in _LOCK), _in(one, "cpu").get("name")] for one in (published, here)]
    return bool(here.get("packages")) and told[0] == told[1]


def stated_seconds(environment: Mapping[str, Any]) -> float:
    """How long a record says that its cell took."""
    return sum(float(value) for value in _in(environment, "wall_s").values() if isinstance(value, int | float))


def _in(environment: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A mapping of an environment; a stranger's may hold something else."""
    found = environment.get(name)
    return found if isinstance(found, Mapping) else {}


def differing(published: Record, here: Record, tolerance: float | None) -> Iterator[str]:
    """What differs between a published record and that of the same cell here, a line each.

    Args:
        published: what is stated.
        here: what the cell gave now.
        tolerance: of means, absolute for shares and relative for the rest; None: all items are the same.
    """
    if published.status is not here.status:
        yield f"its status is {published.status}, run again it is {here.status}"
        return
    theirs, ours = read_items(published.items), read_items(here.items)
    if [_asked(one) for one in theirs] != [_asked(one) for one in ours]:
        yield "its prompts are others than those that its cell asks"
        return
    if tolerance is None:
        for one, other in zip(theirs, ours, strict=True):
            yield from _items(one, other)
    reach = _DIGITS if tolerance is None else tolerance
    for name in sorted(published.metrics.keys() | here.metrics.keys()):
        if compared(name):
            yield from _means(name, published, here, reach)


def compared(name: str) -> bool:
    """Whether two runs of a cell agree on a metric."""
    if name in CARDS:
        return CARDS[name].unit not in _OF_A_MACHINE
    return not name.endswith(("_s", "_ms", "_mb"))


def _asked(item: Item) -> tuple[Any, ...]:
    return item.prompt_id, item.source, item.length, tuple(item.truth_ids), tuple(item.spans)


def _items(one: Item, other: Item) -> Iterator[str]:
    where = f"prompt {quoted(one.prompt_id)}"
    if (list(one.guess_ids), list(one.guess_tokens)) != (list(other.guess_ids), list(other.guess_tokens)):
        yield f"{where}: its guess is another one"
    if list(one.secrets) != list(other.secrets):
        yield f"{where}: other secrets are found"
    for name in sorted(one.metrics.keys() | other.metrics.keys()):
        stated, found = one.metrics.get(name, math.nan), other.metrics.get(name, math.nan)
        if compared(name) and not _near(stated, found, _DIGITS, share=False):
            yield f"{where}, {quoted(name)}: {stated:.6g}, run again {found:.6g}"


def _means(name: str, published: Record, here: Record, reach: float) -> Iterator[str]:
    if name not in published.metrics or name not in here.metrics:
        yield f"{quoted(name)}: measured {'here' if name in here.metrics else 'there'} alone"
        return
    stated, found = published.metrics[name].mean, here.metrics[name].mean
    share = name in CARDS and not CARDS[name].unit
    if not _near(stated, found, reach, share=share):
        yield f"{quoted(name)}: {stated:.6g}, run again {found:.6g}"


def _near(one: float, other: float, reach: float, *, share: bool) -> bool:
    if math.isnan(one) or math.isnan(other):
        return math.isnan(one) and math.isnan(other)
    return math.isclose(one, other, rel_tol=0 if share else reach, abs_tol=reach if share else min(reach, _NOISE))
