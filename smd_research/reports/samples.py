"""What a table rests on, in a line: how many prompts and seeds, or how many measurements, and where."""

import math
from collections.abc import Sequence

import pandas as pd

from smd_research.metrics import SCORES
from smd_research.records.bench import Bench
from smd_research.reports.render import numbers

_OF_DOCUMENTS = ("restored_loss", "exposed_loss", "original_loss")
"""Metrics whose interval runs over held-out documents."""


def sample_of_frame(frame: pd.DataFrame, pooled: bool = False) -> str:
    """How many texts a cell has, from which seed, and over what the intervals run.

    ``n = 20 prompts a cell, seed 0; 95 % intervals over prompts``.

    Args:
        frame: as :func:`smd_research.records.load` gives it.
        pooled: whether seeds are pooled in the table.
    """
    if frame.empty:
        return ""
    prompts, seeds = (numbers.span(sorted(set(frame[name].dropna()))) for name in ("n_prompts", "seed"))
    what = " and ".join(_sampled(frame))
    if pooled and frame["seed"].nunique() > 1:
        over = f"means over seeds, 95 % intervals over seeds (of a share no narrower than over all their {what})"
    else:
        over = f"95 % intervals over {what}"
    of = "evaluation texts" if what == "texts" else "prompts"
    return f"n = {prompts} {of} a cell, seed {seeds}; {over}{_older(frame)}"


def _older(frame: pd.DataFrame) -> str:
    """That some scores are not of today's version; empty where all are."""
    versions = sorted({int(version) for version in frame["scored"].dropna() if version < SCORES})
    return f"; scored by version {numbers.span(versions)} of {SCORES}" if versions else ""


def _sampled(frame: pd.DataFrame) -> list[str]:
    """Over what the figures of a frame are means."""
    tuned = frame["task"].fillna("").astype(bool)
    measured = set(frame["metric"].dropna())
    found = ["texts"] if tuned.any() else []
    found += ["prompts"] if not tuned.all() and not measured & set(_OF_DOCUMENTS) else []
    return [*found, *(["held-out documents"] if measured & set(_OF_DOCUMENTS) else [])]


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
