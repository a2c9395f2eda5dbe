"""Seeds pooled: one figure for cells that differ in their seed alone, its interval over seeds."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from smd_research.metrics.estimate import aggregate
from smd_research.records.frame import DEPLOYED, DESIGN, VERSIONS
from smd_research.records.record import Status
from smd_research.reports.tables.table import Table

_SAME = [name for name in (*DESIGN, *VERSIONS, DEPLOYED) if name != "seed"]


def over_seeds(frame: pd.DataFrame) -> pd.DataFrame:
    """A frame in which every metric stands once for cells that differ in their seed alone.

    The mean is that of the seeds' means, the interval Student's over seeds, ``n`` the number of seeds. While one of the
    cells has not run, or failed, its status stands beside the figures of the others.

    Args:
        frame: as :func:`smd_research.records.load` gives it.
    """
    measured = frame["status"] == str(Status.OK)
    kept = frame[~measured].drop_duplicates([*_SAME, "status"])
    rows = [_pooled(group) for _, group in frame[measured].groupby([*_SAME, "metric"], dropna=False, sort=False)]
    made = pd.concat([pd.DataFrame(rows, columns=frame.columns), kept], ignore_index=True)
    return made.astype(frame.dtypes.to_dict())


def _pooled(group: pd.DataFrame) -> dict[str, Any]:
    found = aggregate(group["mean"])
    figures = {"mean": found.mean, "low": found.low, "high": found.high, "n": found.n}
    first: dict[str, Any] = {str(key): value for key, value in group.iloc[0].to_dict().items()}
    # One identity for what is pooled, the same for every metric: that of the first seed's cell.
    return first | figures | {"seed": pd.NA}


def table(source: pd.DataFrame, view: Callable[..., Table], title: str = "") -> Table:
    """A table of pooled records.

    Args:
        source: a frame of records.
        view: makes a table of a frame.
        title: heading.
    """
    return view(over_seeds(source), title=title)


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
