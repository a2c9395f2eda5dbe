"""The two sides of a comparison: which cells are meant, and which of the one stands beside which of the other."""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import pandas as pd

from smd_research.core.errors import RecordError
from smd_research.records.frame import frame_of, records_in
from smd_research.records.options import Label
from smd_research.records.packing import record_at
from smd_research.records.record import Record, Status
from smd_research.reports.designs import tell_apart
from smd_research.reports.points import Point, Where, fits, points, rest
from smd_research.reports.render import numbers

Side: TypeAlias = str | Where
"""A cell by its id or a part of its folder's name, or cells by their labels, ``{"defense": "smd"}``."""

Source: TypeAlias = pd.DataFrame | Iterable[Record]

_MOST = 4
"""How many values of a label an error names."""


@dataclass(frozen=True, repr=False)
class Cells:
    """Cells to choose from.

    Attributes:
        found: a point of each, without its figures.
        read: the record of one of them.
    """

    found: Sequence[Point]
    read: Callable[[Point], Record]

    @classmethod
    def of(cls, source: Source) -> "Cells":
        """The cells of a frame, whose records are read when their prompts are asked for, or of records at hand."""
        if isinstance(source, pd.DataFrame):
            return cls(points(source.drop_duplicates("id")), record_of)
        records = {record.cell.id: record for record in source}
        return cls(points(frame_of(records.values()).drop_duplicates("id")), lambda point: records[point.id])

    @classmethod
    def at(cls, path: Path) -> "Cells":
        """The cells of a results folder, or of a file of packed records.

        Raises:
            RecordError: there are none, or the file does not hold together.
        """
        found = records_in(path)
        return cls.of(found if path.is_file() else frame_of(found))

    def measured(self) -> "Cells":
        """Those that have a result, of each the latest version.

        Raises:
            RecordError: none has.
        """
        found = [point for point in self.found if point.status is Status.OK]
        if not found:
            raise RecordError("no cell has a result: there is nothing to compare")
        return Cells(_latest(found), self.read)

    def meant(self, side: Side) -> "Cells":
        """Those of a side that have a result.

        Raises:
            RecordError: there are none; what there is instead is said.
        """
        chosen = self._named(side) if isinstance(side, str) else [p for p in self.found if fits(p, side)]
        if not chosen:
            raise RecordError(f"no cell {said(side)}: {self._instead(side)}")
        measured = [point for point in chosen if point.status is Status.OK]
        if not measured:
            first = chosen[0]
            reason = f" ({first.reason})" if first.reason else ""
            raise RecordError(f"{said(side)} is {first.status}{reason}: there is nothing to compare")
        latest = _latest(measured)
        if isinstance(side, str) and len(latest) > 1:
            raise several(side, latest)
        return Cells(latest, self.read)

    def _named(self, name: str) -> list[Point]:
        """The cell of an id or of a folder, else those whose folder's name has this part."""
        exact = [point for point in self.found if name in (point.id, _folder(point))]
        return exact or [point for point in self.found if name in _folder(point)]

    def _instead(self, side: Side) -> str:
        """What stands where something else was asked for."""
        if isinstance(side, str):
            return f"there are {len(self.found)}, by id or folder, or by labels as defense=smd"
        for name in side:
            there = [point.labels[name] for point in self.found if name in point.labels]
            if not there:
                return f"no cell has a label {name}"
            if not any(fits(point, {name: side[name]}) for point in self.found):
                return f"{name} is {_few(there)}"
        return "its labels occur, but never together"


@dataclass(frozen=True, repr=False)
class SideBySide:
    """Cells of two sides that stand beside each other.

    Attributes:
        pairs: of one cell each.
        alone: how many cells of either side have none beside them.
    """

    pairs: Sequence[tuple[Point, Point]]
    alone: tuple[int, int] = (0, 0)


def beside(one: Cells, other: Cells, sides: tuple[Side, Side]) -> SideBySide:
    """Lay the cells of two sides beside each other: those that differ in nothing but the labels that both sides name.

    Where each side is one cell they stand beside each other whatever they differ in.

    Raises:
        RecordError: there are none, a cell has several beside it, or both sides are the same cells.
    """
    if {point.id for point in one.found} == {point.id for point in other.found} and one.read is other.read:
        raise RecordError(f"{said(sides[0])} and {said(sides[1])} are the same: there is nothing to compare")
    if len(one.found) == len(other.found) == 1:
        return SideBySide([(one.found[0], other.found[0])])
    for side, cells in zip(sides, (one, other), strict=True):
        if isinstance(side, str) or not set(sides[0]) & set(sides[1]):
            raise several(side, cells.found) if len(cells.found) > 1 else _unlike(sides)
    return matching(one, other, set(sides[0]) & set(sides[1]), sides)


def matching(one: Cells, other: Cells, names: Collection[str], sides: tuple[Side, Side]) -> SideBySide:
    """Cells that differ in nothing but some labels, and where they ran.

    Raises:
        RecordError: there are none, or a cell has several beside it; the labels that would part them are named.
    """
    keyed = [_by_key(cells.found, names) for cells in (one, other)]
    shared = [key for key in keyed[0] if key in keyed[1]]
    if not shared:
        apart = _differing([*one.found, *other.found], names)
        raise RecordError(
            f"no cell of {said(sides[0])} has one of {said(sides[1])} beside it: name what parts them on both sides, "
            f"of {apart}"
        )
    for side, groups in zip(sides, keyed, strict=True):
        if crowd := next((groups[key] for key in shared if len(groups[key]) > 1), None):
            raise several(side, crowd)
    alone = tuple(sum(len(group) for key, group in groups.items() if key not in shared) for groups in keyed)
    return SideBySide([(keyed[0][key][0], keyed[1][key][0]) for key in shared], (alone[0], alone[1]))


def told_apart(one: Point, other: Point) -> tuple[str, str]:
    """What each of two cells is called beside the other: the parts and settings in which they differ."""
    words: tuple[list[str], list[str]] = ([], [])
    for part, mine in one.design.parts.items():
        keys = mine.key, other.design.parts[part].key
        if keys[0] != keys[1]:
            labels = tell_apart(keys)
            for said_of, key in zip(words, keys, strict=True):
                said_of.append(labels[key] if key[0] else f"no {part}")
    for name, value in one.design.settings.items():
        if value != other.design.settings[name]:
            for said_of, point in zip(words, (one, other), strict=True):
                said_of.append(f"{name}={numbers.label(point.design.settings[name])}")
    return " ".join(words[0]), " ".join(words[1])


def several(side: Side, found: Sequence[Point]) -> RecordError:
    """That a side is several cells, with the labels that part them."""
    return RecordError(f"{said(side)} is {len(found)} cells where one is needed: add one of {_differing(found)}")


def _unlike(sides: tuple[Side, Side]) -> RecordError:
    words = " and ".join(map(said, sides))
    return RecordError(
        f"{words} name nothing in common: name on both sides what parts them, as defense=smd defense=none"
    )


def record_of(point: Point) -> Record:
    """The whole record of a point's cell, prompts included.

    Raises:
        RecordError: it is not where the point says, or does not hold together.
    """
    place = Path(point.folder)
    if not place.is_dir() and not place.parent.is_file():
        where = "give its records, as of records_in(FILE), or load the file or folder that has them now"
        raise RecordError(f"{point.folder or point.id} is not here, and a frame holds no prompts: {where}")
    return record_at(place)


def _folder(point: Point) -> str:
    return Path(point.folder).name


def in_common(pairs: Sequence[tuple[Point, Point]]) -> list[dict[str, str]]:
    """What tells several pairs of cells from each other: the parts and settings that both cells of a pair share."""
    designs = [(one.design, other.design) for one, other in pairs]
    told: list[dict[str, str]] = [{} for _ in pairs]
    for part in designs[0][0].parts if designs else ():
        keys = [(one.parts[part].key, other.parts[part].key) for one, other in designs]
        if len(set(keys)) > 1 and all(mine == theirs for mine, theirs in keys):
            labels = tell_apart(mine for mine, _ in keys)
            told = [row | {part: labels[mine]} for row, (mine, _) in zip(told, keys, strict=True)]
    for name in designs[0][0].settings if designs else ():
        values = [(one.settings[name], other.settings[name]) for one, other in designs]
        if len(set(values)) > 1 and all(mine == theirs for mine, theirs in values):
            told = [row | {name: numbers.label(mine)} for row, (mine, _) in zip(told, values, strict=True)]
    return told


def _by_key(found: Sequence[Point], names: Collection[str]) -> dict[object, list[Point]]:
    groups: dict[object, list[Point]] = defaultdict(list)
    for point in found:
        groups[_apart_from(point, names)].append(point)
    return groups


def _apart_from(point: Point, names: Collection[str]) -> object:
    """A cell's labels without some, and without what its deployment chose and where it ran."""
    return rest(point.asked, {*names, "device"})


def _latest(found: Sequence[Point]) -> list[Point]:
    """The latest version of each cell."""
    groups = _by_key(found, ()).values()
    return [
        max(group, key=lambda p: [p.design.parts[part].version for part in ("defense", "attack")]) for group in groups
    ]


def _differing(found: Sequence[Point], names: Collection[str] = ()) -> str:
    """The labels in which cells differ, with values; the names of parts first, their options where the name is one."""
    values: dict[str, list[Label]] = {}
    for name in dict.fromkeys(name for point in found for name in point.labels):
        there = list(dict.fromkeys(point.labels[name] for point in found if name in point.labels))
        if len(there) > 1 and name not in names and name.partition(".")[0] not in {*names, *values}:
            values[name] = there
    return "; ".join(f"{name}={_few(there)}" for name, there in values.items()) or "nothing but their versions"


def _few(values: Iterable[Label]) -> str:
    """Some labels in order, numbers as numbers."""
    kinds = {value: isinstance(value, int | float) for value in values}
    words = sorted(kinds, key=lambda one: (not kinds[one], one if kinds[one] else 0, numbers.label(one)))
    return ", ".join([*map(numbers.label, words[:_MOST]), *(["..."] if len(words) > _MOST else [])])


def said(side: Side) -> str:
    """A side as one writes it."""
    if isinstance(side, str):
        return side
    values: dict[str, Sequence[Any]] = {
        name: value if isinstance(value, list | tuple) else [value] for name, value in side.items()
    }
    return ",".join(f"{name}={numbers.label(value)}" for name, either in values.items() for value in either)
