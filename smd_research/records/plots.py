"""Figures of records: the frontier of privacy, utility and latency; leak and utility against epsilon; bench bars."""

import math
import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from smd_research.core.errors import RecordError
from smd_research.metrics import CARDS
from smd_research.records.battery import Battery, Score, batteries, is_baseline
from smd_research.records.bench import BenchCase
from smd_research.records.placing import place_labels
from smd_research.records.style import (
    CATEGORIES,
    INK,
    LEAK,
    MARKERS,
    QUIET,
    RULE,
    SEQUENTIAL,
    house_style,
    new_figure,
    percent_axis,
    save,
)
from smd_research.records.tables import broken

_KL_FLOOR = 1e-3
"""Below this a reader of the text sees no difference; exact defenses (1e-12) share the end of the colour scale."""


@dataclass(frozen=True)
class FrontierPoint:
    """A defense on the frontier: label, family, latency, leak of the best attack, chance level, utility loss."""

    label: str
    family: str
    latency: float
    leak: Score
    chance: float
    loss: float


def frontier_points(frame: pd.DataFrame, leak: str, latency: str, utility: str) -> list[FrontierPoint]:
    """The defenses of a frame that were attacked and timed.

    A defense that met no attack but the baselines is left out, unless none met more: its privacy is untested.
    """
    found = batteries(frame)
    tested = [battery for battery in found if battery.tested]
    points = []
    for battery in tested or found:
        best, speed, loss = battery.best(leak), battery.common(latency), battery.common(utility)
        if best is None or speed is None:
            continue
        chance = battery.chance(leak)
        points.append(
            FrontierPoint(
                battery.label, battery.name, speed.mean, best, chance.mean if chance else math.nan,
                loss.mean if loss else math.nan,
            )
        )  # fmt: skip
    return points


def frontier(
    frame: pd.DataFrame,
    path: str | os.PathLike[str],
    leak: str = "span_exact",
    latency: str = "tpot_ms",
    utility: str = "kl",
    title: str = "",
) -> Path:
    """Write :func:`frontier_figure` as PNG.

    Returns:
        The path.
    """
    return save(frontier_figure(frame, leak, latency, utility, title), Path(path))


def frontier_figure(
    frame: pd.DataFrame, leak: str = "span_exact", latency: str = "tpot_ms", utility: str = "kl", title: str = ""
) -> Figure:
    """Privacy against latency, coloured by utility: up is private, left is fast, dark is faithful.

    Privacy is one minus what the best attack of the battery recovers, with its 95 % interval; a short line marks what
    chance would leave.

    Args:
        frame: as :func:`smd_research.records.load` gives it.
        leak: privacy metric of the vertical axis.
        latency: cost metric of the horizontal axis.
        utility: utility metric of the colour.
        title: heading; says what is shown by default.

    Raises:
        RecordError: when no defense of the frame has all it takes.
    """
    points = frontier_points(frame, leak, latency, utility)
    if not points:
        raise RecordError(f"no record has {leak} and {latency}: run attacks on a defense first")
    with house_style():
        figure = new_figure(8.2, 5.2)
        axes = figure.add_subplot()
        norm = _loss_norm([point.loss for point in points], utility)
        shown = axes.scatter(
            [p.latency for p in points],
            [1 - p.leak.mean for p in points],
            c=[_visible(p.loss, norm) for p in points],
            cmap=SEQUENTIAL, norm=norm, s=110, edgecolors=INK, linewidths=0.8, zorder=4,
        )  # fmt: skip
        for point in points:
            _error_bar(axes, point)
        _connect(axes, points)
        percent_axis(axes)
        _latency_axis(axes, [p.latency for p in points])
        axes.set_xlabel(f"{_with_unit(latency)}, lower is faster")
        axes.set_ylabel(f"privacy: 1 - {CARDS[leak].label} by the best attack")
        axes.set_title(title or "Privacy, latency and utility of each defense")
        if any(not math.isnan(point.chance) for point in points):
            mark = Line2D([], [], color=LEAK, marker="_", ls="", ms=14, mew=1.6, label="what chance alone would leave")
            axes.legend(handles=[mark], loc="lower right", bbox_to_anchor=(1.0, 1.0), borderpad=0, fontsize=8.5)
        bar = figure.colorbar(shown, ax=axes, pad=0.02, fraction=0.05, aspect=28)
        bar.set_label(f"{_with_unit(utility)}, lower is more faithful")
        bar.outline.set_visible(False)
        figure.draw_without_rendering()
        texts = [f"{point.label}\n{broken(point.leak.attack, 20)}" for point in points]
        bars = [(p.latency, 1 - p.leak.high, p.latency, 1 - p.leak.low) for p in points if not math.isnan(p.leak.low)]
        place_labels(axes, [(p.latency, 1 - p.leak.mean) for p in points], texts, avoid=bars)
        return figure


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
        if _epsilon(battery) is not None:
            variants[_variant(battery)].append(battery)
    variants = {name: found for name, found in variants.items() if len({_epsilon(b) for b in found}) > 1}
    if not variants:
        raise RecordError(f"records of {defense} hold fewer than two epsilons: run defense.epsilon=...,... -m first")
    with house_style():
        figure = new_figure(9.6, 0.4 + 3.8 * len(variants))
        rows = figure.subplots(len(variants), 2, squeeze=False)
        labelled: list[tuple[Axes, dict[str, tuple[float, float]]]] = []
        for (left, right), (name, found) in zip(rows, variants.items(), strict=True):
            found.sort(key=lambda battery: _epsilon(battery) or 0.0)
            prefix = f"{name}: " if len(variants) > 1 else ""
            ends = _leak_panel(left, found, leak)
            left.set_title(f"{prefix}{CARDS[leak].label}, lower is better", size=10, weight="normal", color=QUIET)
            _utility_panel(right, found, utility)
            right.set_title(f"{prefix}{_with_unit(utility)}, lower is better", size=10, weight="normal", color=QUIET)
            epsilons = sorted({_epsilon(battery) or 0.0 for battery in found})
            _epsilon_axis(left, epsilons, room=0.42)
            _epsilon_axis(right, epsilons, room=0.08)
            labelled.append((left, ends))
        figure.suptitle(title or f"{defense}: what epsilon buys", x=0.008, ha="left", weight="bold", size=12)
        figure.draw_without_rendering()
        for left, ends in labelled:
            place_labels(left, list(ends.values()), list(ends), right_first=True)
        return figure


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


def _with_unit(metric: str) -> str:
    card = CARDS[metric]
    return f"{card.label} ({card.unit})" if card.unit else card.label


def _error_bar(axes: Axes, point: FrontierPoint) -> None:
    leak = point.leak
    if not math.isnan(leak.low):
        axes.plot([point.latency] * 2, [1 - leak.high, 1 - leak.low], color=QUIET, lw=1.2, zorder=3)
    if not math.isnan(point.chance):
        axes.plot([point.latency], [1 - point.chance], marker="_", ms=14, mew=1.6, color=LEAK, zorder=2)


def _connect(axes: Axes, points: Sequence[FrontierPoint]) -> None:
    """A thin line through the settings of one defense, so that a family reads as one."""
    families: dict[str, list[FrontierPoint]] = defaultdict(list)
    for point in points:
        families[point.family].append(point)
    for family in families.values():
        places = [(p.latency, 1 - p.leak.mean) for p in family]
        axes.plot(*zip(*places, strict=True), color=RULE, lw=1.4, zorder=1)


def _loss_norm(losses: Sequence[float], utility: str) -> Normalize:
    known = [loss for loss in losses if not math.isnan(loss)] or [1.0]
    if utility == "kl":
        return LogNorm(_KL_FLOOR, max(*known, 10 * _KL_FLOOR, 1.0))
    low, high = min(known), max(known)
    return Normalize(low, high if high > low else low + 1)


def _visible(loss: float, norm: Normalize) -> float:
    return max(loss, float(norm.vmin or 0.0)) if not math.isnan(loss) else math.nan


def _latency_axis(axes: Axes, latencies: Sequence[float]) -> None:
    low, high = min(latencies), max(latencies)
    if high > 4 * low:
        axes.set_xscale("log")
        axes.set_xlim(low / 1.6, high * 2.2)
        axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda x, _: f"{x:g}"))
        axes.xaxis.set_minor_formatter(ticker.NullFormatter())
        if high < 30 * low:
            axes.xaxis.set_major_locator(ticker.LogLocator(10, subs=(1, 2, 5)))
    else:
        span = max(high - low, 0.1 * high)
        axes.set_xlim(max(0.0, low - 0.25 * span), high + 0.5 * span)


def _variant(battery: Battery) -> str:
    """What parts one curve from another: setting and options that are words; numbers are what a curve runs over."""
    words = [value for value in battery.parameters.values() if isinstance(value, str)]
    return " ".join([*battery.setting.values(), *words])


def _leak_panel(axes: Axes, found: Sequence[Battery], leak: str) -> dict[str, tuple[float, float]]:
    """A curve an attack; returns where each ends, for its label."""
    curves: dict[str, list[tuple[float, Score]]] = defaultdict(list)
    for battery in found:
        for outcome in battery.outcomes():
            score = battery.score(leak, outcome.attack)
            if score is not None:
                curves[outcome.attack].append((_epsilon(battery) or 0.0, score))
    _curves(axes, curves)
    percent_axis(axes)
    return {attack: (points[-1][0], points[-1][1].mean) for attack, points in curves.items()}


def _utility_panel(axes: Axes, found: Sequence[Battery], utility: str) -> None:
    losses = [(_epsilon(b) or 0.0, score) for b in found if (score := b.common(utility)) is not None]
    _curve(axes, losses, CATEGORIES[0], "o", "-")
    means = [score.mean for _, score in losses]
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
    axes.plot(x, [s.mean for _, s in points], line, color=colour, marker=marker or None, ms=6, mec="white", mew=0.8)


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
    axes.set_xlabel("epsilon")


def _epsilon(battery: Battery) -> float | None:
    value = battery.parameters.get("epsilon")
    return float(value) if isinstance(value, int | float) else None
