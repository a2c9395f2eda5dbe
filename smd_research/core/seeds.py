"""Named random generators: one seed a cell, a child generator for each purpose.

A child depends on the seed and on its names alone, never on the order in which children are asked for or on the number
of workers (numpy ``SeedSequence`` with the names hashed into the spawn key).
"""

import hashlib

import numpy as np

_HASHED = 2**16
"""Numbers below it are told apart by four bytes of their hash; of a hundred thousand, two would not be."""


def _key(name: str | int) -> int:
    if isinstance(name, int) and name >= _HASHED:
        return 2**32 + name  # no hash is as large
    return int.from_bytes(hashlib.sha256(str(name).encode()).digest()[:4], "big")


def sequence(seed: int, *names: str | int) -> np.random.SeedSequence:
    """The seed sequence of a purpose, e.g. ``sequence(0, "attack", prompt_id)``."""
    return np.random.SeedSequence(seed, spawn_key=tuple(_key(name) for name in names))


def generator(seed: int, *names: str | int) -> np.random.Generator:
    """An independent NumPy generator for a purpose."""
    return np.random.default_rng(sequence(seed, *names))
