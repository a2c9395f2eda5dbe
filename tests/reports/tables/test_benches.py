import math

from smd_research.records.bench import BenchCase
from smd_research.reports.render.text import markdown
from smd_research.reports.tables.benches import bench_table

CASES = [
    BenchCase("100m users=8 smd/none", 61.2, 57.0, 1.0737, "ms/token", 50),
    BenchCase("pipe", 40.0, math.nan, math.nan, "us", 1000),
]


def test_cases_are_shown_beside_their_baselines() -> None:
    shown = markdown(bench_table(CASES, "Decode"))
    assert "| 100m users=8 smd/none | 61.2 ms/token | 57.0 ms/token | 1.07x | 50 |" in shown
    assert "| pipe | 40.0 us | – | – | 1000 |" in shown
