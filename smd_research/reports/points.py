"""One measurement with the labels that tell it from the others, whether a cell left it or a bench.

Declared tables, claims and figures ask for points by label, so that they read records and bench files alike.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import pandas as pd

from smd_research.metrics import CARDS
from smd_research.metrics.spread import Spread
from smd_research.records.bench import BenchCase
from smd_research.records.options import Label
from smd_research.records.record import Status
from smd_research.reports.designs import NO_CELL, Design, Labels, read_design

Where: TypeAlias = Mapping[str, Label | Sequence[Label]]
_FIGURES = ("id", "status", "metric", "mean", "low", "high", "n")
"""The columns of a frame that a point is made of beside what its cell is."""

Source: TypeAlias = pd.DataFrame | Sequence[BenchCase]


@dataclass(frozen=True)
class Point:
    """One figure.

    Attributes:
        labels: parameters by name: of a bench its own; of a cell its design, options as ``defense.epsilon``.
        quantity: a metric, or ``value``, ``baseline``, ``ratio`` or an extra figure of a bench; empty where a cell has
            no figures.
        value: the mean or median, with ``low`` and ``high`` its 95 % interval and ``n`` what it rests on.
        unit: of the value; empty for a share.
        id: the cell, or the bench's case.
        status: how the cell ended.
        reason: why it is not ok.
        design: the cell's; empty for a bench.
        folder: of its record, or its place in a packed file, where its prompts are; empty where there is none.
    """

    labels: Labels
    quantity: str = ""
    value: float = math.nan
    low: float = math.nan
    high: float = math.nan
    n: int = 0
    unit: str = ""
    id: str = ""
    status: Status = Status.OK
    reason: str = ""
    design: Design = field(default=NO_CELL, repr=False, compare=False)
    folder: str = field(default="", repr=False, compare=False)

    @property
    def asked(self) -> "Point":
        """The point by what its cell was asked for, without what the deployment chose for options left open."""
        return self if self.design is NO_CELL else replace(self, labels=replace(self.design, deployed="").labels)


@dataclass(frozen=True)
class Series:
    """Which points are meant: those of a quantity whose labels have the values asked for (or one of a list)."""

    quantity: str
    where: Where = field(default_factory=dict)

    def points(self, found: Iterable[Point]) -> list[Point]:
        """The points meant, those without a value left out."""
        return [p for p in found if p.quantity == self.quantity and not math.isnan(p.value) and fits(p, self.where)]


def points(source: Source) -> list[Point]:
    """Every figure of a frame of records or of the cases of benches."""
    return list(_of_frame(source) if isinstance(source, pd.DataFrame) else _of_bench(source))


def fits(point: Point, where: Where) -> bool:
    """Whether a point has the labels asked for."""
    return all(
        among(point.labels.get(name), wanted if isinstance(wanted, list | tuple) else [wanted])
        for name, wanted in where.items()
    )


def fitting(found: Sequence[Point], where: Where) -> list[Point]:
    """The points that have the labels asked for; asked once of those that share theirs, as the points of a cell do."""
    kept = {id(point.labels) for point in apart(found) if fits(point, where)}
    return [point for point in found if id(point.labels) in kept]


def apart(found: Iterable[Point]) -> list[Point]:
    """A point of each that have labels of their own, in order."""
    return list({id(point.labels): point for point in found}.values())


def among(label: object, choices: Iterable[object]) -> bool:
    """Whether a label is one of several."""
    return any(same(label, choice) for choice in choices)


def same(one: object, other: object) -> bool:
    """Whether two labels are equal; numbers as numbers, so that 8 and 8.0 are one."""
    if isinstance(one, int | float) and isinstance(other, int | float):
        return math.isclose(one, other, rel_tol=1e-9)
    return one == other


def rest(point: Point, names: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """A point's other labels, by which it is matched with a point that differs in ``names`` only.

    Options go with their part: without ``attack``, ``attack.rounds`` does not count either. And a setting that a part
    takes over goes with the setting: without ``wire_dtype``, ``defense.wire_dtype`` does not count.
    """
    left_out = set(names)
    kept = {
        name: label
        for name, label in point.labels.items()
        if not left_out & {name, name.partition(".")[0], name.rpartition(".")[2]}
    }
    return tuple(sorted((name, _text(label)) for name, label in kept.items()))


def matched(found: Sequence[Point], one: Series, other: Series) -> Iterator[tuple[Point, Point]]:
    """Pairs of points of two series that differ in nothing but the labels that both ask for."""
    names = one.where.keys() & other.where.keys()
    partners = {rest(point, names): point for point in other.points(found)}
    for point in one.points(found):
        partner = partners.get(rest(point, names))
        if partner is not None:
            yield point, partner


def _text(label: Label) -> str:
    return f"{label:g}" if isinstance(label, float) else str(label)


def _of_bench(cases: Sequence[BenchCase]) -> Iterator[Point]:
    for case in cases:
        measured = {"value": (case.value_spread, case.unit), "ratio": (case.ratio_spread, "x")}
        measured["baseline"] = (Spread(case.baseline), case.unit)
        measured |= {name: (spread, name.rpartition("_")[2]) for name, spread in case.extra.items()}
        for name, (spread, unit) in measured.items():
            if not math.isnan(spread.median):
                yield _measured(case, name, spread, unit)


def _measured(case: BenchCase, quantity: str, spread: Spread, unit: str) -> Point:
    return Point(case.labels, quantity, spread.median, spread.low, spread.high, case.n, unit, case.case)


def _of_frame(frame: pd.DataFrame) -> Iterator[Point]:
    designs = {str(row["id"]): read_design(row) for row in frame.drop_duplicates("id").to_dict("records")}
    cells = {cell: (design.labels, design) for cell, design in designs.items()}
    told = (frame[name].astype(object).where(frame[name].notna(), "").tolist() for name in ("reason", "path"))
    rows = zip(*(frame[name].tolist() for name in _FIGURES), *told, strict=True)
    for cell, status, metric, mean, low, high, n, reason, folder in rows:
        cell, status, reason, folder = str(cell), Status(status), str(reason), str(folder)
        labels, design = cells[cell]
        if status is not Status.OK or not isinstance(metric, str):
            yield Point(labels, id=cell, status=status, reason=reason, design=design, folder=folder)
            continue
        figures = (mean, low, high, int(n))
        unit = CARDS[metric].unit if metric in CARDS else ""
        yield Point(labels, metric, *figures, unit, cell, design=design, folder=folder)
