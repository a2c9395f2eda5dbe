"""Which labels make the rows of a declared table, or the curves of a figure."""

from collections.abc import Callable, Mapping, Sequence
from itertools import product

from smd_research.records.options import Label
from smd_research.reports.points import Point, among, apart, same


def rows_of(found: Sequence[Point], declared: Mapping[str, Sequence[Label] | None]) -> list[dict[str, Label]]:
    """The labels of every row, in the order declared; else numbers by size, words as they were met.

    Args:
        found: the points of the table.
        declared: labels that make a row, each with its values in order, or None for those that there are. Where all are
            given, every combination has a row, measured or not.
    """
    names = list(declared)
    given = [declared[name] for name in names]
    made: list[tuple[Label, ...]] = []
    if all(values is not None for values in given):
        made += product(*(values or () for values in given))
    for point in apart(found):
        row = tuple(point.labels.get(name) for name in names)
        wanted = all(values is None or among(label, values) for label, values in zip(row, given, strict=True))
        if wanted and not any(all(map(same, row, other)) for other in made):
            made.append(row)
    places = [_order(values, [row[i] for row in made]) for i, values in enumerate(given)]
    made.sort(key=lambda row: [place(label) for place, label in zip(places, row, strict=True)])
    return [dict(zip(names, row, strict=True)) for row in made]


def _order(given: Sequence[Label] | None, met: Sequence[Label]) -> Callable[[Label], float]:
    """Where a label comes: as declared; else numbers by size, words as they were met."""
    order = list(given) if given is not None else list(dict.fromkeys(met))

    def place(label: Label) -> float:
        if given is None and isinstance(label, int | float):
            return float(label)
        return next(float(i) for i, other in enumerate(order) if same(label, other))

    return place


def said(row: Mapping[str, Label], unset: Mapping[str, str] | None) -> dict[str, Label]:
    """The labels of a row with a word for each that its cells do not set, where there is one."""
    return {name: (unset or {}).get(name) if value is None else value for name, value in row.items()}
