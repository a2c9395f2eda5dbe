"""Attacks against defenses, a row a defense."""

from collections.abc import Sequence

import pandas as pd

from smd_research.metrics import CARDS
from smd_research.records.frame import has_metric
from smd_research.records.record import Status
from smd_research.reports.batteries import Battery, Score, batteries
from smd_research.reports.render import numbers
from smd_research.reports.samples import sample_of_frame
from smd_research.reports.tables.entries import entry
from smd_research.reports.tables.table import Column, Table, TableEntry


def summary(frame: pd.DataFrame, title: str = "Attacks against defenses", notes: Sequence[str] = ()) -> Table:
    """One row a defense: what its best attack recovers beside chance, and what it costs in utility, time and traffic.

    Args:
        frame: as :func:`smd_research.records.load` gives it.
        title: heading of the table.
        notes: footnotes of this table, after those that every one has.
    """
    found = batteries(frame)
    settings = list(found[0].setting) if found else []
    utility = [name for name in ("accuracy", "perplexity", "kl") if has_metric(frame, name)]
    cost = [
        n
        for n in ("ttft_ms", "tpot_ms", "bytes_to_untrusted", "bytes_to_trusted", "modelled_s")
        if has_metric(frame, n)
    ]
    columns = [Column(name.replace("_", " "), align="left") for name in settings]
    columns += [Column("defense", align="left"), Column("best attack", align="left")]
    columns += [Column("secrets", "recovered"), Column("tokens", "recovered"), Column("chance", "secrets / tokens")]
    leak = next((name for name in ("span_exact", "token_accuracy") if has_metric(frame, name)), None)
    columns += [Column("leak", f"{'secrets' if leak == 'span_exact' else 'tokens'} beyond chance")] if leak else []
    columns += [Column(CARDS[name].label, CARDS[name].unit.replace("B", "bytes")) for name in (*utility, *cost)]
    rows = []
    for battery in found:
        chance = (battery.chance("span_exact"), battery.chance("token_accuracy"))
        row = [TableEntry(value) for value in battery.setting.values()]
        row += [TableEntry(battery.defense), _best_attack(battery)]
        row += [entry(battery.best(name), "leak") for name in ("span_exact", "token_accuracy")]
        row.append(_pair(chance))
        row += [entry(battery.leak(leak), "leak")] if leak else []
        row += [entry(battery.common(n), "bytes" if CARDS[n].unit == "B" else "number") for n in (*utility, *cost)]
        rows.append(tuple(row))
    return Table(title, tuple(columns), tuple(rows), (*_footnotes(frame, found), *notes), sample_of_frame(frame))


def _best_attack(battery: Battery) -> TableEntry:
    spans, tokens = battery.best("span_exact"), battery.best("token_accuracy")
    best = [score for score in (spans, tokens) if score is not None]
    names = list(dict.fromkeys(score.attack for score in best))
    if not names and any(outcome.status is Status.MISSING for outcome in battery.outcomes):
        return TableEntry(numbers.PENDING)
    if not names:
        return TableEntry(numbers.MISSING if battery.tested else f"{numbers.MISSING} *")
    text = names[0] if len(names) == 1 else f"{names[0]} (secrets), {names[1]} (tokens)"
    return TableEntry(text if battery.tested else f"{text} *", ids=tuple(dict.fromkeys(score.id for score in best)))


def _pair(scores: tuple[Score | None, Score | None]) -> TableEntry:
    texts = [numbers.MISSING if score is None else numbers.share(score.value) for score in scores]
    ids = tuple(dict.fromkeys(score.id for score in scores if score is not None))
    return TableEntry(" / ".join(texts) if ids else numbers.MISSING, ids=ids)


def _footnotes(frame: pd.DataFrame, found: list[Battery]) -> tuple[str, ...]:
    notes = []
    outcomes = [outcome for battery in found for outcome in battery.outcomes]
    failed = sum(outcome.status is Status.FAILED for outcome in outcomes)
    if failed:
        notes.append(f"{failed} of {len(outcomes)} attacks failed and are left out: a row may miss its best attack.")
    if not all(battery.tested for battery in found):
        notes.append("* Nothing in the battery reads what this defense shows: its privacy is untested, not proven.")
    if any(has_metric(frame, name) for name in ("excess_span_exact", "excess_token_accuracy")):
        notes.append("Leak: paired over prompts where chance is the attack's control, else as of independent cells.")
    if has_metric(frame, "modelled_s"):
        notes.append("Link time is modelled from counted traffic, not measured.")
    return tuple(notes)
