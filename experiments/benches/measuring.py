"""From a bench's case to its rows: sides interleaved, medians, intervals."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from experiments.benches.case import Case, Label, Measured, Modes, Side
from smd_research.metrics.spread import Spread, spread


def measure(case: Case | Modes, repeats: int) -> list[dict[str, Any]]:
    """Measure a case, or several modes.

    Returns:
        One row for a case, one for each of several modes. ``value`` and ``baseline`` are medians in ``unit``, each with
        the ``_low`` and ``_high`` of its 95 % interval; ``ratio`` is theirs, its interval that of the ratios within a
        turn; ``n`` counts measurements a side; ``labels`` are the case's and the last measurement's; ``extra`` holds
        ``[median, low, high]`` of whatever else the side measured.
    """
    sides = dict(_sides(case))
    for _ in range(case.warmup):
        for side in sides.values():
            side()
    names = list(sides)
    taken: dict[str, list[Measured]] = {name: [] for name in names}
    for turn in range(case.repeats or repeats):
        # Each side goes first in its turn: whatever the one before leaves in the caches favours none.
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            taken[name].append(_measured(sides[name]()))
    if isinstance(case, Case):
        return [_row(case, case.name, case.labels, taken["value"], taken.get("baseline"))]
    rows = []
    for index, mode in enumerate(names):
        baseline = taken[names[0]] if index else None
        rows.append(_row(case, f"{case.name} {mode}", {**case.labels, "mode": mode}, taken[mode], baseline))
    return rows


def _sides(case: Case | Modes) -> Iterator[tuple[str, Side]]:
    if isinstance(case, Modes):
        yield from case.modes.items()
        return
    yield "value", case.value
    if case.baseline is not None:
        yield "baseline", case.baseline


def _measured(found: float | Measured) -> Measured:
    return found if isinstance(found, Measured) else Measured(float(found))


def _row(
    case: Case | Modes,
    name: str,
    labels: Mapping[str, Label],
    taken: Sequence[Measured],
    against: Sequence[Measured] | None,
) -> dict[str, Any]:
    value = spread([one.value for one in taken])
    baseline = spread([one.value for one in against or ()])
    turns = [one.value / other.value for one, other in zip(taken, against or (), strict=False) if other.value]
    ratio = Spread(value.median / baseline.median if baseline.median else math.nan, *_ends(spread(turns)))
    extras = dict.fromkeys(key for one in taken for key in one.extra)
    return {
        "case": name,
        **_named("value", value),
        **_named("baseline", baseline),
        **_named("ratio", ratio),
        "unit": case.unit,
        "n": len(taken),
        "labels": {**labels, **taken[-1].labels},
        "extra": {key: _listed(spread([one.extra.get(key, math.nan) for one in taken])) for key in extras},
    }


def _ends(found: Spread) -> tuple[float, float]:
    return found.low, found.high


def _listed(found: Spread) -> list[float | None]:
    return [number if math.isfinite(number) else None for number in (found.median, found.low, found.high)]


def _named(name: str, found: Spread) -> dict[str, float | None]:
    return dict(zip((name, f"{name}_low", f"{name}_high"), _listed(found), strict=True))
