"""Seeds pooled: one figure for cells that differ in their seed alone, its interval over seeds."""

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from smd_research.metrics import CARDS
from smd_research.metrics.estimate import Estimate, Scale, aggregate
from smd_research.metrics.interval import clopper_pearson
from smd_research.records.frame import DEPLOYED, DESIGN, VERSIONS
from smd_research.records.record import Status
from smd_research.reports.samples import sample_of_frame
from smd_research.reports.tables.table import Table

_SAME = [name for name in (*DESIGN, *VERSIONS, DEPLOYED) if name != "seed"]


def over_seeds(frame: pd.DataFrame) -> pd.DataFrame:
    """A frame in which every metric stands once for cells that differ in their seed alone.

    The mean is that of the seeds' means on the metric's own scale, ``n`` the number of seeds, the interval
    :func:`over_few`. While one of the cells has not run, or failed, its status stands beside the figures of the others.

    Args:
        frame: as :func:`smd_research.records.load` gives it.
    """
    measured = frame["status"] == str(Status.OK)
    kept = frame[~measured].drop_duplicates([*_SAME, "status"])
    rows = [_pooled(group) for _, group in frame[measured].groupby([*_SAME, "metric"], dropna=False, sort=False)]
    made = pd.concat([pd.DataFrame(rows, columns=frame.columns), kept], ignore_index=True)
    return made.astype(frame.dtypes.to_dict())


def _pooled(group: pd.DataFrame) -> dict[str, Any]:
    found = over_few(group["mean"].tolist(), group["n"].tolist(), _scale(str(group["metric"].iloc[0])))
    figures = {"mean": found.mean, "low": found.low, "high": found.high, "n": found.n}
    first: dict[str, Any] = {str(key): value for key, value in group.iloc[0].to_dict().items()}
    # One identity for what is pooled, the same for every metric: that of the first seed's cell.
    return first | figures | {"seed": pd.NA}


def over_few(means: Sequence[float], sizes: Sequence[int], scale: Scale) -> Estimate:
    """The mean of a few seeds: Student's interval over them, inside the range of the scale.

    Seeds that agree by accident would make a share's interval too narrow, so it is at least the one that all their
    values together would have if each were 0 or 1 (Clopper and Pearson's).

    Args:
        means: of each seed.
        sizes: over how many values each is a mean.
        scale: of the metric.
    """
    if scale not in ("rate", "excess"):
        return aggregate(means, scale)
    if set(sizes) == {1} and len(set(means)) == 1:
        return Estimate(means[0], n=len(means))  # no sample stands behind it: a level of chance
    lowest, student = (0.0 if scale == "rate" else -1.0), aggregate(means, "linear")
    if student.n < 2:
        return student
    hits, n = (student.mean - lowest) / (1 - lowest) * sum(sizes), sum(sizes)
    low, high = (lowest + (1 - lowest) * end for end in clopper_pearson(hits, n))
    return Estimate(student.mean, min(max(student.low, lowest), low), max(min(student.high, 1.0), high), student.n)


def _scale(metric: str) -> Scale:
    return CARDS[metric].scale if metric in CARDS else "linear"


def table(source: pd.DataFrame, view: Callable[..., Table], title: str = "") -> Table:
    """A table of pooled records.

    Args:
        source: a frame of records.
        view: makes a table of a frame.
        title: heading.
    """
    return replace(view(over_seeds(source), title=title), sample=sample_of_frame(source, pooled=True))


def figure(
    source: pd.DataFrame, path: str | os.PathLike[str], draw: Callable[[pd.DataFrame, str | os.PathLike[str]], Path]
) -> Path:
    """A figure of pooled records.

    Args:
        source: a frame of records.
        path: of the picture.
        draw: draws a frame.
    """
    return draw(over_seeds(source), path)
