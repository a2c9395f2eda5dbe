"""Vertical shaking: a key's operators applied to the rows of an embedding table (reconstructed; arXiv 2403.07283)."""

import numpy as np

from smd_research.mechanisms.shaking.key import Key
from smd_research.mechanisms.shaking.operators import AFFINE, OPERATORS
from smd_research.mechanisms.shaking.streams import Floats, KeyStream


def shake(table: Floats, key: Key, sigma: float | None = None, part: str = "table") -> Floats:
    """``T(table)``: the key's operators one after another.

    Rows draw noise by their position: shake a table whose rows already stand where the cloud will find them.

    Args:
        table: ``[V, d]``.
        key: the operators and their secret.
        sigma: the deviation that strengths are relative to; None: that of all entries of ``table``.
        part: which of a model's tables; another name draws everything anew.

    Returns:
        ``[V, d]``, float64.
    """
    shaken = np.asarray(table, dtype=np.float64)
    sigma = float(shaken.std()) if sigma is None else sigma
    for index, (name, strength) in enumerate(key.vertical):
        shaken = OPERATORS[name](shaken, strength, _stream(key, part, index, name), sigma)
    return shaken


def affine(key: Key, width: int, sigma: float, part: str = "table") -> tuple[Floats, Floats]:
    """Matrix ``A [d, d]`` and offset ``b [d]`` of the key's affine operators together, noise left out: ``e A + b``."""
    matrix, offset = np.eye(width), np.zeros((1, width))
    for index, (name, strength) in enumerate(key.vertical):
        if name in AFFINE:
            stream = _stream(key, part, index, name)
            constant = AFFINE[name](np.zeros((1, width)), strength, stream, sigma)
            matrix = AFFINE[name](matrix, strength, stream, sigma) - constant
            offset = AFFINE[name](offset, strength, stream, sigma)
    return matrix, offset[0]


def _stream(key: Key, part: str, index: int, name: str) -> KeyStream:
    return key.stream("vertical", part, index, name)
