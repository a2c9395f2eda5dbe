"""What epsilon buys: leak and utility of a noise defense."""

import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from smd_research.core.errors import RecordError
from smd_research.metrics import CARDS
from smd_research.reports.batteries import Battery, Score, batteries, is_baseline
from smd_research.reports.epsilons import notion, the_one
from smd_research.reports.figures.placing import place_ends
from smd_research.reports.figures.style import (
    CATEGORIES,
    INK,
    MARKERS,
    QUIET,
    house_style,
    new_figure,
    percent_axis,
    save,
)


def epsilon_sweep(
    frame: pd.DataFrame,
    path: str | os.PathLike[str],
    defense: str,
    leak: str = "token_accuracy",
    utility: str = "kl",
    title: str = "",
) -> Path:
    """Write :func:`epsilon_figure` as PNG.

    Returns:
        The path.
    """
    return save(epsilon_figure(frame, defense, leak, utility, title), Path(path))


def epsilon_figure(
    frame: pd.DataFrame, defense: str, leak: str = "token_accuracy", utility: str = "kl", title: str = ""
) -> Figure:
    """Two panels over epsilon: what each attack recovers, and what utility is lost, with 95 % bands.

    Variants of the defense (mechanisms, models) stand below each other, each with its own epsilons: those of two
    mechanisms do not compare.

    Args:
        frame: as :func:`smd_research.records.load` gives it.
        defense: name of a defense with an ``epsilon``.
        leak: privacy metric of the left panel.
        utility: utility metric of the right panel.
        title: heading of the figure.

    Raises:
        RecordError: when no variant has two epsilons.
    """
    variants: dict[str, list[Battery]] = defaultdict(list)
    for battery in batteries(frame[frame["defense"] == defense]):
        if battery.epsilon is not None:
            variants[battery.variant].append(battery)
    variants = {name: found for name, found in variants.items() if len({b.epsilon for b in found}) > 1}
    if not variants:
        raise RecordError(f"records of {defense} hold fewer than two epsilons: run defense.epsilon=...,... -m first")
    with house_style():
        figure = new_figure(9.6, 0.4 + 3.8 * len(variants))
        rows = figure.subplots(len(variants), 2, squeeze=False)
        labelled: list[tuple[Axes, dict[str, tuple[float, float]]]] = []
        for (left, right), (name, found) in zip(rows, variants.items(), strict=True):
            found.sort(key=lambda battery: battery.epsilon or 0.0)
            prefix = f"{name}: " if len(variants) > 1 else ""
            ends = _leak_panel(left, found, leak)
            left.set_title(f"{prefix}{CARDS[leak].label}, lower is better", size=10, weight="normal", color=QUIET)
            _utility_panel(right, found, utility)
            right.set_title(f"{prefix}{CARDS[utility].heading}, lower is better", size=10, weight="normal", color=QUIET)
            epsilons = sorted({battery.epsilon or 0.0 for battery in found})
            kind = the_one(notion(battery.name, "epsilon", battery.parameters) for battery in found)
            for axes, room in ((left, 0.42), (right, 0.08)):
                _epsilon_axis(axes, epsilons, room)
                axes.set_xlabel(f"epsilon, {kind.unit}" if kind else "epsilon")
            labelled.append((left, ends))
        figure.suptitle(title or f"{defense}: what epsilon buys", x=0.008, ha="left", weight="bold", size=12)
        figure.draw_without_rendering()
        for left, ends in labelled:
            place_ends(left, list(ends.values()), list(ends))
        return figure


def _leak_panel(axes: Axes, found: Sequence[Battery], leak: str) -> dict[str, tuple[float, float]]:
    """A curve an attack; returns where each ends, for its label."""
    curves: dict[str, list[tuple[float, Score]]] = defaultdict(list)
    for battery in found:
        for outcome in battery.outcomes:
            score = battery.score(leak, outcome.attack)
            if score is not None:
                curves[outcome.attack].append((battery.epsilon or 0.0, score))
    _curves(axes, curves)
    percent_axis(axes)
    return {attack: (points[-1][0], points[-1][1].value) for attack, points in curves.items()}


def _utility_panel(axes: Axes, found: Sequence[Battery], utility: str) -> None:
    losses = [(b.epsilon or 0.0, score) for b in found if (score := b.common(utility)) is not None]
    _curve(axes, losses, CATEGORIES[0], "o", "-")
    means = [score.value for _, score in losses]
    if means and min(means) > 0 and max(means) > 30 * min(means):
        _log_axis(axes)
    else:
        axes.set_ylim(bottom=0)


def _curves(axes: Axes, curves: dict[str, list[tuple[float, Score]]]) -> None:
    colours = iter(zip(CATEGORIES, MARKERS, strict=True))
    for attack, points in curves.items():
        if is_baseline(attack):
            _curve(axes, points, QUIET, "", "--")
        else:
            colour, marker = next(colours, (INK, "o"))
            _curve(axes, points, colour, marker, "-")


def _curve(axes: Axes, points: list[tuple[float, Score]], colour: str, marker: str, line: str) -> None:
    x = [epsilon for epsilon, _ in points]
    if marker:  # the band of a baseline would only cover the others'
        axes.fill_between(x, [s.low for _, s in points], [s.high for _, s in points], color=colour, alpha=0.13, lw=0)
    axes.plot(x, [s.value for _, s in points], line, color=colour, marker=marker or None, ms=6, mec="white", mew=0.8)


def _log_axis(axes: Axes) -> None:
    """A logarithmic axis whose ticks read as plain numbers where they span few decades."""
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    if high < 1e3 * low:
        axes.yaxis.set_major_locator(ticker.LogLocator(10, subs=(1, 2, 5)))
        axes.yaxis.set_minor_locator(ticker.NullLocator())
        axes.yaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))


def _epsilon_axis(axes: Axes, epsilons: Sequence[float], room: float) -> None:
    """Log scale, a tick at each epsilon; ``room`` to the right, as a share of the range, is for labels."""
    if epsilons[0] > 0:
        axes.set_xscale("log")
        axes.set_xlim(epsilons[0] / 1.12, epsilons[-1] * (epsilons[-1] / epsilons[0]) ** room)
    axes.set_xticks(list(epsilons), [f"{epsilon:g}" for epsilon in epsilons])
    axes.xaxis.set_minor_locator(ticker.NullLocator())
