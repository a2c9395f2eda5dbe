"""Every figure of records, each to look at (``*_figure``) and to write as PNG."""

from smd_research.records.bench_figure import bench_bars, bench_figure
from smd_research.records.epsilon_figure import epsilon_figure, epsilon_sweep
from smd_research.records.frontier_figure import FrontierPoint, frontier, frontier_figure, frontier_points

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
