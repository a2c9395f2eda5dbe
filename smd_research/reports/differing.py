"""Where a published table differs from the one that its records make, by row and column."""

import csv
import io
import math
import re
from collections.abc import Iterator, Sequence
from itertools import zip_longest

from smd_research.core.quoting import quoted

_ALIKE = 1e-9
"""Relative difference of two numbers that are one number, added up in another order."""

_SHOWN = 60
_RULE = re.compile(r"\|( -+:? \|)+")


def differing_csv(name: str, found: str, made: str) -> Iterator[str]:
    """What differs between two CSV files, a line each.

    Args:
        name: of the file.
        found: what is published.
        made: what its records make.
    """
    try:
        theirs, ours = (list(csv.reader(io.StringIO(text))) for text in (found, made))
    except csv.Error as error:
        yield f"{name}: no CSV ({error})"
        return
    heading = ours[0] if ours else []
    if theirs[:1] != ours[:1]:
        yield f"{name}: its columns are not those that its records make"
    elif len(theirs) != len(ours):
        yield f"{name}: {len(theirs) - 1} rows, its records make {len(ours) - 1}"
    else:
        for number, (row, made_row) in enumerate(zip(theirs[1:], ours[1:], strict=True), start=1):
            yield from _row(name, number, heading, row, made_row)


def differing_text(name: str, found: str, made: str) -> Iterator[str]:
    """What differs between two texts, a line each; in a Markdown table by row and column."""
    heading: list[str] = []
    row = 0
    for number, (theirs, ours) in enumerate(zip_longest(found.splitlines(), made.splitlines()), start=1):
        cells = _cells(ours)
        if _RULE.fullmatch(ours or ""):
            row = 0
        elif cells:
            row += 1
        if theirs == ours:
            heading = cells if not heading or not cells else heading
        elif theirs is None or ours is None:
            yield f"{name}: {'ends early' if theirs is None else 'goes on'} at line {number}"
            return
        elif heading and cells and len(heading) == len(cells):
            yield from _row(name, row, heading, _cells(theirs), cells)
        else:
            yield f"{name}: line {number} is {_short(theirs)}, its records make {_short(ours)}"
        if not cells:
            heading = []


def _row(name: str, number: int, heading: Sequence[str], found: Sequence[str], made: Sequence[str]) -> Iterator[str]:
    where = f"{name}: row {number} ({quoted(made[0], _SHOWN) if made else ''})"
    if len(found) != len(made):
        yield f"{where} has {len(found)} columns, its records make {len(made)}"
        return
    for column, theirs, ours in zip(heading, found, made, strict=True):
        if not _same(theirs, ours):
            yield f"{where}, column '{quoted(column, _SHOWN)}': {_short(theirs)}, its records make {_short(ours)}"


def _same(one: str, other: str) -> bool:
    if one == other:
        return True
    try:
        return math.isclose(float(one), float(other), rel_tol=_ALIKE, abs_tol=_ALIKE)
    except ValueError:
        return False


def _cells(line: str | None) -> list[str]:
    """The places of a row of a Markdown table; of another line none."""
    if not line or not line.startswith("| "):
        return []
    return [part.strip() for part in re.split(r"(?<!\\)\|", line)[1:-1]]


def _short(text: str) -> str:
    return f"'{quoted(text, _SHOWN)}'"
