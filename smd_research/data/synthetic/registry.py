"""Public registers: many values of one type of secret, by the law that the documents' own values follow."""

from random import Random

from smd_research.core.errors import ConfigError
from smd_research.core.seeds import sequence
from smd_research.data.synthetic.grammar import Slot
from smd_research.data.synthetic.partition import CorpusSplit
from smd_research.data.synthetic.pools import pools
from smd_research.data.synthetic.values import SECRET_TYPE, Values

_TRIES = 20  # draws for each value wanted: a type with few values yields what it has


def register(kind: str, split: str, n: int, seed: int = 0) -> list[str]:
    """Distinct values of one type, each drawn as for a document of its own.

    Args:
        kind: type of secret, e.g. ``name``; its slots (a full name, a first name, a surname) take turns.
        split: whose values.
        n: how many; fewer where the type has not as many.
        seed: a different seed gives other values, in another order.

    Raises:
        ConfigError: for a type that the generator does not know.
    """
    slots = [Slot(name, bound=False) for name, secret in SECRET_TYPE.items() if secret == kind]
    if not slots:
        raise ConfigError(f"no secret of type {kind!r}: use one of {', '.join(sorted(set(SECRET_TYPE.values())))}")
    part = CorpusSplit(split)
    rng = Random(int(sequence(seed, "register", kind, split).generate_state(1, "uint64")[0]))
    found: dict[str, None] = {}
    for number in range(_TRIES * n):
        if len(found) == n:
            break
        value, _ = Values(part, pools(part), rng).draw(slots[number % len(slots)])
        found[value] = None
    return list(found)
