"""Which split a value or a template belongs to: a stable hash decides, so nothing is ever in two splits."""

import zlib
from collections.abc import Iterable
from enum import StrEnum

_TRAIN_BELOW, _VALIDATION_BELOW = 70, 80


class CorpusSplit(StrEnum):
    """The three disjoint parts of the synthetic corpus."""

    TRAIN = "train"
    VALIDATION = "validation"
    EVALUATION = "evaluation"


def split_of(text: str) -> CorpusSplit:
    """The one split in which a secret value or a template may occur (70 / 10 / 20 per cent), whatever its type.

    CRC-32 is enough: the hash spreads texts, it protects nothing, and random numbers are drawn against it by rejection.
    """
    bucket = zlib.crc32(text.casefold().encode()) % 100
    if bucket < _TRAIN_BELOW:
        return CorpusSplit.TRAIN
    return CorpusSplit.VALIDATION if bucket < _VALIDATION_BELOW else CorpusSplit.EVALUATION


def values_of_split(values: Iterable[str], split: CorpusSplit) -> tuple[str, ...]:
    """The values that belong to ``split``, without duplicates, in a fixed order."""
    return tuple(sorted({value for value in values if split_of(value) == split}))
