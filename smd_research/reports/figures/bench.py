"""Measured medians beside their baselines."""

import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from smd_research.core.errors import RecordError
from smd_research.records.bench import BenchCase
from smd_research.reports.figures.style import (
    CATEGORIES,
    INK,
    house_style,
    new_figure,
    save,
)


def bench_bars(cases: Sequence[BenchCase], path: str | os.PathLike[str], title: str = "") -> Path:
    """Write :func:`bench_figure` as PNG.

    Returns:
        The path.
    """
    return save(bench_figure(cases, title), Path(path))


def bench_figure(cases: Sequence[BenchCase], title: str = "") -> Figure:
    """Measured medians as bars, the baseline as a line on each, the ratio written out.

    Args:
        cases: of one unit, as :func:`smd_research.records.bench.read_bench` gives them.
        title: heading of the figure.

    Raises:
        RecordError: when there is nothing to draw, or units are mixed.
    """
    units = {case.unit for case in cases}
    if len(units) != 1:
        raise RecordError(f"bench cases of one unit are needed, not {', '.join(sorted(units)) or 'none'}")
    with house_style():
        figure = new_figure(8.0, 0.9 + 0.42 * len(cases))
        axes = figure.add_subplot()
        places = np.arange(len(cases))[::-1]
        axes.barh(places, [case.value for case in cases], height=0.56, color=CATEGORIES[0], alpha=0.85)
        reach = max(max(case.value, case.baseline if not math.isnan(case.baseline) else 0.0) for case in cases)
        for place, case in zip(places, cases, strict=True):
            if not math.isnan(case.baseline):
                axes.plot([case.baseline] * 2, [place - 0.36, place + 0.36], color=INK, lw=2.2, solid_capstyle="butt")
            ratio = "" if math.isnan(case.ratio) else f"  {case.ratio:.2f}x"
            end = max(case.value, 0.0 if math.isnan(case.baseline) else case.baseline)
            axes.text(end + 0.012 * reach, place, f"{case.value:.3g}{ratio}", va="center", size=9)
        axes.set_yticks(places, [case.case for case in cases])
        axes.tick_params(axis="y", length=0)
        axes.set_xlim(0, 1.16 * reach)
        axes.grid(visible=False, axis="y")
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(f"{units.pop()}, median; the upright line is the baseline of the same run")
        axes.set_title(title or "Measured side by side")
        return figure
