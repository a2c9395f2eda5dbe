"""What a table rests on, in a line: how many prompts and seeds, or how many measurements, and where."""

import math
from collections.abc import Sequence

import pandas as pd

from smd_research.records.bench import Bench
from smd_research.reports.render import numbers


def sample_of_frame(frame: pd.DataFrame) -> str:
    """How many prompts a cell has, from which seed: ``n = 20 prompts a cell, seed 0; 95 % intervals over prompts``."""
    if frame.empty:
        return ""
    prompts, seeds = (numbers.span(sorted(set(frame[name].dropna()))) for name in ("n_prompts", "seed"))
    return f"n = {prompts} prompts a cell, seed {seeds}; 95 % intervals over prompts"


def sample_of_benches(benches: Sequence[Bench]) -> str:
    """How often each side was measured, and where: medians of one machine never compare with those of another."""
    counts = sorted({case.n for bench in benches for case in bench.cases})
    if not counts:
        return ""
    places = dict.fromkeys(place for bench in benches if (place := _place(bench)))
    if counts == [1]:
        return "; ".join(["Counted once", *places])
    measured = f"Medians of n = {numbers.span(counts)} measurements, 95 % intervals"
    compared = any(not math.isnan(case.ratio) for bench in benches for case in bench.cases)
    sides = ["the sides of a case interleaved in one run"] if compared else []
    return "; ".join([measured, *sides, *places])


def _place(bench: Bench) -> str:
    """Processor or accelerator, cores and threads; empty where the file does not say."""
    environment = bench.environment
    if environment.get("accelerator"):
        return str(environment["accelerator"])
    cpu = environment.get("cpu") or {}
    if not cpu:
        return ""
    name = cpu.get("name") or environment.get("platform", "")
    return f"{name}, {cpu.get('usable')} cores, {bench.settings.get('threads', 1)} thread(s) a party"
