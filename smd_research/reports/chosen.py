"""One record of a frame, by the labels that tell it from the others."""

import pandas as pd

from smd_research.core.errors import RecordError
from smd_research.records.frame import read_record
from smd_research.records.options import Label
from smd_research.records.record import Record
from smd_research.reports.points import Where, fits, points


def chosen(frame: pd.DataFrame, **where: Label) -> Record:
    """The record whose cell has these labels, e.g. ``defense="smd", attack="prior"``.

    Raises:
        RecordError: when none has, or several: then more labels are needed.
    """
    return chosen_where(frame, where)


def chosen_where(frame: pd.DataFrame, where: Where) -> Record:
    """The same for labels that are no Python names, e.g. ``{"defense.epsilon": 0.1}``.

    Raises:
        RecordError: when none has, or several.
    """
    found = sorted({point.id for point in points(frame) if fits(point, where)})
    wanted = ", ".join(f"{name}={value}" for name, value in where.items())
    if len(found) != 1:
        raise RecordError(f"{len(found)} records have {wanted}: one is needed")
    return read_record(frame, found[0])
