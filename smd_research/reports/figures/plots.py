"""Every figure of records, each to look at (``*_figure``) and to write as PNG."""

from smd_research.reports.figures.bench import bench_bars, bench_figure
from smd_research.reports.figures.epsilon import epsilon_figure, epsilon_sweep
from smd_research.reports.figures.frontier import FrontierPoint, frontier, frontier_figure, frontier_points

__all__ = [
    "FrontierPoint",
    "bench_bars",
    "bench_figure",
    "epsilon_figure",
    "epsilon_sweep",
    "frontier",
    "frontier_figure",
    "frontier_points",
]
