"""Tables of records: a small model, and the tables that everybody wants."""

import math
import re
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from smd_research.metrics import CARDS
from smd_research.records.record import Status
from smd_research.reports.batteries import BASELINES, Battery, Score, batteries, is_baseline
from smd_research.reports.render import numbers
from smd_research.reports.samples import sample_of_frame


@dataclass(frozen=True)
class Column:
    """A column: its heading, the unit or remark under it, and how it is aligned."""

    title: str
    unit: str = ""
    align: Literal["left", "right"] = "right"


@dataclass(frozen=True)
class Entry:
    """One place of a table.

    Attributes:
        text: as shown.
        interval: its 95 % interval as shown; may be empty.
        value: the number behind it, NaN for text, with ``low`` and ``high``.
        n: how many prompts.
        ids: the cells it comes from, so that every number can be traced.
        note: a remark, e.g. why an attack does not apply.
        shade: 0 (nothing leaked) to 1 (all leaked) where the table is coloured by leak; else None.
    """

    text: str
    interval: str = ""
    value: float = math.nan
    low: float = math.nan
    high: float = math.nan
    n: int = 0
    ids: tuple[str, ...] = ()
    note: str = ""
    shade: float | None = None


@dataclass(frozen=True)
class Table:
    """Rows under columns, with a title and what a reader must know below.

    Attributes:
        title: heading.
        columns: headings of the rows' entries.
        rows: one entry a column.
        footnotes: remarks.
        sample: how much it rests on, e.g. ``20 prompts a cell, seed 0``.
        command: what makes it again.
    """

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Entry, ...], ...]
    footnotes: tuple[str, ...] = ()
    sample: str = ""
    command: str = ""

    @property
    def notes(self) -> tuple[str, ...]:
        """All that stands below: the footnotes, the sample and the command."""
        made = f"Made by: {self.command}" if self.command else ""
        sample = f"{self.sample}." if self.sample else ""
        return (*self.footnotes, *(note for note in (sample, made) if note))


def broken(name: str, width: int) -> str:
    """A long name in lines no wider than ``width``, broken after underscores and at spaces."""
    lines = [""]
    for part in re.split(r"(?<=_)|(?<= )", name):
        if lines[-1] and len(lines[-1] + part.rstrip()) > width:
            lines.append("")
        lines[-1] += part
    return "\n".join(line.rstrip() for line in lines)


def entry(score: Score | None, unit: str | None = None, shaded: bool = False) -> Entry:
    """An estimate as shown: a share in percent where ``unit`` is None, else a quantity; ``–`` where there is none."""
    if score is None:
        return Entry(numbers.MISSING)
    text = numbers.share(score.mean) if unit is None else numbers.quantity(score.mean, unit)
    if unit is None:
        bounds = numbers.share_interval(score.low, score.high)
    else:
        bounds = "" if unit == "B" else numbers.interval(score.low, score.high, score.mean)
    shade = min(max(score.mean, 0.0), 1.0) if shaded else None
    return Entry(text, bounds, score.mean, score.low, score.high, score.n, (score.id,), shade=shade)


def summary(frame: pd.DataFrame, title: str = "Attacks against defenses") -> Table:
    """One row a defense: what its best attack recovers beside chance, and what it costs in utility, time and traffic.

    Args:
        frame: as :func:`smd_research.records.load` gives it.
        title: heading of the table.
    """
    found = batteries(frame)
    settings = list(found[0].setting) if found else []
    utility = [name for name in ("accuracy", "perplexity", "kl") if _any(frame, name)]
    cost = [n for n in ("ttft_ms", "tpot_ms", "bytes_to_untrusted", "bytes_to_trusted", "modelled_s") if _any(frame, n)]
    columns = [Column(name.replace("_", " "), align="left") for name in settings]
    columns += [Column("defense", align="left"), Column("best attack", align="left")]
    columns += [Column("secrets", "recovered"), Column("tokens", "recovered"), Column("chance", "secrets / tokens")]
    columns += [Column(CARDS[name].label, CARDS[name].unit.replace("B", "bytes")) for name in (*utility, *cost)]
    rows = []
    for battery in found:
        chance = (battery.chance("span_exact"), battery.chance("token_accuracy"))
        row = [Entry(value) for value in battery.setting.values()]
        row += [Entry(battery.defense), _best_attack(battery)]
        row += [entry(battery.best(name), shaded=True) for name in ("span_exact", "token_accuracy")]
        row.append(_pair(chance))
        row += [entry(battery.common(name), CARDS[name].unit) for name in (*utility, *cost)]
        rows.append(tuple(row))
    return Table(title, tuple(columns), tuple(rows), _summary_footnotes(frame, found), sample_of_frame(frame))


def leak_matrix(frame: pd.DataFrame, metric: str = "span_exact", title: str | None = None) -> Table:
    """Defenses by attacks: what each attack recovers; ``–`` where it does not apply, with the reason as a footnote.

    The control is the most that any of them recovers when it is given another prompt's view.

    Args:
        frame: as :func:`smd_research.records.load` gives it.
        metric: a privacy metric, e.g. ``span_exact`` or ``token_accuracy``.
        title: heading; the metric's label by default.
    """
    found = batteries(frame)
    outcomes = [{outcome.attack: outcome for outcome in battery.outcomes()} for battery in found]
    names = {name for row in outcomes for name in row}
    attacks = sorted(names, key=lambda name: (_rank(name), name))
    columns = (Column("defense", align="left"), *(Column(name) for name in attacks))
    controlled = any(battery.control(metric) for battery in found)
    if controlled:
        columns += (Column("control", "another prompt's view"),)
    rows, notes = [], {}
    for battery, ended in zip(found, outcomes, strict=True):
        row = [Entry(battery.label)]
        for attack in attacks:
            outcome = ended.get(attack)
            score = battery.score(metric, attack)
            if score is not None:
                row.append(entry(score, shaded=True))
            elif outcome is None:
                row.append(Entry("", note="not run"))
            elif outcome.status is Status.MISSING:
                row.append(Entry(numbers.PENDING, ids=(outcome.id,), note=outcome.reason))
            elif outcome.status is Status.FAILED:
                row.append(Entry("failed", ids=(outcome.id,), note=outcome.reason))
                notes[f"{battery.label}, {attack}: failed: {_one_line(outcome.reason)}"] = True
            else:
                row.append(Entry(numbers.MISSING, ids=(outcome.id,), note=outcome.reason))
        if controlled:
            row.append(entry(battery.control(metric), shaded=True))
        rows.append(tuple(row))
    label = title or f"{CARDS[metric].label[0].upper()}{CARDS[metric].label[1:]}, by defense and attack"
    explained = (f"{numbers.MISSING}: the attack needs what the defense does not show.",)
    used = any(cell.text == numbers.MISSING for row in rows for cell in row)
    return Table(label, columns, tuple(rows), (*(explained if used else ()), *notes))


def _rank(attack: str) -> int:
    """Baselines first, in their own order."""
    return BASELINES.index(attack.split(" ")[0]) if is_baseline(attack) else len(BASELINES)


def _any(frame: pd.DataFrame, metric: str) -> bool:
    return bool(((frame["metric"] == metric) & frame["mean"].notna()).any())


def _best_attack(battery: Battery) -> Entry:
    spans, tokens = battery.best("span_exact"), battery.best("token_accuracy")
    best = [score for score in (spans, tokens) if score is not None]
    names = list(dict.fromkeys(score.attack for score in best))
    if not names and any(outcome.status is Status.MISSING for outcome in battery.outcomes()):
        return Entry(numbers.PENDING)
    if not names:
        return Entry(numbers.MISSING if battery.tested else f"{numbers.MISSING} *")
    text = names[0] if len(names) == 1 else f"{names[0]} (secrets), {names[1]} (tokens)"
    return Entry(text if battery.tested else f"{text} *", ids=tuple(dict.fromkeys(score.id for score in best)))


def _pair(scores: tuple[Score | None, Score | None]) -> Entry:
    texts = [numbers.MISSING if score is None else numbers.share(score.mean) for score in scores]
    ids = tuple(dict.fromkeys(score.id for score in scores if score is not None))
    return Entry(" / ".join(texts) if ids else numbers.MISSING, ids=ids)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _summary_footnotes(frame: pd.DataFrame, found: list[Battery]) -> tuple[str, ...]:
    notes = []
    outcomes = [outcome for battery in found for outcome in battery.outcomes()]
    failed = sum(outcome.status is Status.FAILED for outcome in outcomes)
    if failed:
        notes.append(f"{failed} of {len(outcomes)} attacks failed and are left out: a row may miss its best attack.")
    if not all(battery.tested for battery in found):
        notes.append("* Nothing in the battery reads what this defense shows: its privacy is untested, not proven.")
    if _any(frame, "modelled_s"):
        notes.append("Link time is modelled from counted traffic, not measured.")
    return tuple(notes)
