"""A cell of a record that came from elsewhere, composed anew from what its command says and this laboratory has.

The record's own configuration builds nothing: its command is read word by word, and only words that choose one of this
laboratory's options, or set a plain value, are taken. A cell is run when what they make has the id of the record.
"""

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.composing.cells import composed
from experiments.composing.overrides import check_choices, check_words, groups
from experiments.trials.plan import Plan
from smd_research.core.paths import conf_dir
from smd_research.core.quoting import quoted

if TYPE_CHECKING:
    from smd_research.records import Record

_WORD = re.compile(r"[A-Za-z]\w*(\.[A-Za-z]\w*)*=[^${}\\]*")
"""A key and a plain value: no dictionary, which could name what to build, and nothing that is resolved or escaped."""

_NOT_ITS_OWN = frozenset({"hydra", "logger", "results_dir", "address", "rerun", "trainer", "record_texts", "cells"})
"""Keys that say where a cell is run and where it goes: this is not for the record to say."""

_FROM_ELSEWHERE = frozenset({"model=hub", "model=local", "model=gguf", "data=hub"})
"""Options that read or fetch what a command names."""

_NAMED = re.compile(r".+\.(\w*(path|file|folder|dir)|dataset|revision|model|relative)")
"""Keys whose value names what is read, written or fetched."""


class NotRunError(Exception):
    """Why a cell is not run again."""


class OtherCellError(Exception):
    """A command that makes another cell than the record that holds it."""


def plan_of(record: "Record", results_dir: Path) -> Plan:
    """The plan that runs the cell of a record again, inside a command that Hydra has started.

    Args:
        record: that came from elsewhere.
        results_dir: where the new record goes.

    Raises:
        NotRunError: its command asks for more than this laboratory has, or is of another version of it.
        OtherCellError: its command makes another cell.
    """
    words = list(_words(record.cell.command))
    try:
        check_words(words, conf_dir())
        check_choices(words, conf_dir())
        plan = composed([*words, f"record_texts={'true' if record.texts else 'false'}"])
    except Exception as error:  # whatever odd words make composing do, the command is what is wrong
        raise NotRunError(f"this laboratory does not take its command: {quoted(error)}") from error
    theirs, ours = dict(record.cell.versions), dict(plan.cell.versions)
    if theirs != ours:
        raise NotRunError(f"made by versions {theirs} of its parts, here they are {ours}")
    if plan.cell.digest != record.cell.digest:
        raise OtherCellError(f"its command makes cell {plan.cell.id}")

    def beside(changed: Sequence[str]) -> Plan:
        return replace(plan.beside(changed), results_dir=results_dir)

    there = replace(plan, results_dir=results_dir, rerun="missing", logger={"name": "none"}, address=None)
    return replace(there, beside=beside)


def _words(command: str) -> Iterator[str]:
    """The words that a command gives to a run.

    Raises:
        NotRunError: at the first that is not taken from elsewhere.
    """
    try:
        program, verb, *words = shlex.split(command)
    except ValueError as error:
        raise NotRunError("its command is none") from error
    if (program, verb) != ("smd", "run"):
        raise NotRunError("its command is none of smd run")
    known = groups(conf_dir())
    for word in words:
        key, _, value = word.partition("=")
        fitting = _WORD.fullmatch(word)
        choice = key in known and not re.fullmatch(r"\w+", value)
        if not fitting or choice or key.partition(".")[0] in _NOT_ITS_OWN:
            raise NotRunError(f"'{quoted(word)}' is not taken from elsewhere")
        if _NAMED.fullmatch(key) or word in _FROM_ELSEWHERE:
            raise NotRunError(f"'{quoted(word)}' names what does not come with the laboratory")
        yield word
