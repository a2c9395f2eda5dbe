"""What each attack recovers from each defense."""

import pandas as pd

from smd_research.metrics import CARDS
from smd_research.records.record import Status
from smd_research.reports.batteries import BASELINES, batteries, is_baseline
from smd_research.reports.render import numbers
from smd_research.reports.tables.entries import entry
from smd_research.reports.tables.table import Column, Table, TableEntry


def leak_matrix(frame: pd.DataFrame, metric: str = "span_exact", title: str | None = None) -> Table:
    """Defenses by attacks: what each attack recovers; ``–`` where it does not apply, with the reason as a footnote.

    The control is the most that any of them recovers when it is given another prompt's view.

    Args:
        frame: as :func:`smd_research.records.load` gives it.
        metric: a privacy metric, e.g. ``span_exact`` or ``token_accuracy``.
        title: heading; the metric's label by default.
    """
    found = batteries(frame)
    outcomes = [{outcome.attack: outcome for outcome in battery.outcomes} for battery in found]
    names = {name for row in outcomes for name in row}
    attacks = sorted(names, key=lambda name: (_rank(name), name))
    columns = (Column("defense", align="left"), *(Column(name) for name in attacks))
    controlled = any(battery.control(metric) for battery in found)
    if controlled:
        columns += (Column("control", "another prompt's view"),)
    rows, notes = [], {}
    for battery, ended in zip(found, outcomes, strict=True):
        row = [TableEntry(battery.label)]
        for attack in attacks:
            outcome = ended.get(attack)
            score = battery.score(metric, attack)
            if score is not None:
                row.append(entry(score, "leak"))
            elif outcome is None:
                row.append(TableEntry("", note="not run"))
            elif outcome.status is Status.MISSING:
                row.append(TableEntry(numbers.PENDING, ids=(outcome.id,), note=outcome.reason))
            elif outcome.status is Status.FAILED:
                row.append(TableEntry("failed", ids=(outcome.id,), note=outcome.reason))
                notes[f"{battery.label}, {attack}: failed: {' '.join(outcome.reason.split())}"] = True
            else:
                row.append(TableEntry(numbers.MISSING, ids=(outcome.id,), note=outcome.reason))
        if controlled:
            row.append(entry(battery.control(metric), "leak"))
        rows.append(tuple(row))
    label = title or f"{CARDS[metric].label[0].upper()}{CARDS[metric].label[1:]}, by defense and attack"
    explained = (f"{numbers.MISSING}: the attack needs what the defense does not show.",)
    used = any(cell.text == numbers.MISSING for row in rows for cell in row)
    return Table(label, columns, tuple(rows), (*(explained if used else ()), *notes))


def _rank(attack: str) -> int:
    """Baselines first, in their own order."""
    return BASELINES.index(attack.split(" ")[0]) if is_baseline(attack) else len(BASELINES)
