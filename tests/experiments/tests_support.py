"""What tests of several modules compare."""

from pathlib import Path

import pandas as pd

from smd_research.metrics import CARDS
from smd_research.records import load

TIMED = {name for name, card in CARDS.items() if card.kind == "cost" and card.unit in ("ms", "s", "1/s", "MB")}
TIMED |= {"attack_s"}


def numbers(results_dir: Path) -> pd.DataFrame:
    """Privacy, utility and traffic of every cell, without what a clock or an allocator says."""
    frame = load(results_dir)
    kept = frame[~frame["metric"].isin(TIMED)]
    columns = ["id", "status", "metric", "mean", "low", "high", "n"]
    return kept.sort_values(["id", "metric"])[columns].reset_index(drop=True)
