"""What a caller writes, in the words of the command line."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.composing.calling import word
from experiments.composing.overrides import UsageError
from experiments.composing.products import key_of

_NO_RECORDS = "a lab writes no records: run the cell with the command that lab.command() gives"
_ELSEWHERE = {
    "attack": 'an attack is no option of a lab: write lab.attack("prior", answer)',
    **dict.fromkeys(("logger", "rerun", "record_texts", "cells"), _NO_RECORDS),
}


def words_of(words: Sequence[str], options: Mapping[str, Any]) -> list[str]:
    """The options of a laboratory as words.

    Args:
        words: some as on the command line, ``defense.survival=0.5``.
        options: others by their name.

    Raises:
        UsageError: for one that is given twice, that is no option of a laboratory, or that no command line can hold.
    """
    for one in words:
        if not isinstance(one, str):
            raise UsageError(f"a {type(one).__name__} is no option: write model=..., defense=... or an option's name")
    given = [*words, *(word(key, value) for key, value in options.items())]
    keys = [key_of(one) for one in given]
    for key, count in Counter(keys).items():
        if count > 1:
            raise UsageError(f"{key} is given twice: keep one of the two")
        if reason := _ELSEWHERE.get(key.partition(".")[0]):
            raise UsageError(reason)
    return given
