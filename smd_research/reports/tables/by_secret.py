"""Every kind of defense in one table, grouped by what is secret: the prompt, the weights, or the tuned texts."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pandas as pd

from smd_research.metrics import CARDS
from smd_research.records.frame import has_metric
from smd_research.reports.batteries import NOBODY, Battery, Score, batteries, is_baseline
from smd_research.reports.render import numbers
from smd_research.reports.samples import sample_of_frame
from smd_research.reports.tables.entries import entry
from smd_research.reports.tables.table import Column, Table, TableEntry


@dataclass(frozen=True)
class Kept:
    """Something that is to be kept, and the metrics that say how well and at what price.

    Attributes:
        name: what it is.
        leak: share of it that an attack recovers.
        utility: what the user is left with.
        time: what it takes.
        traffic: bytes that cross the boundary, summed.
        tuned: whether a model is tuned on the texts, which then are the secret, and no prompt.
    """

    name: str
    leak: str
    utility: str
    time: str
    traffic: tuple[str, ...]
    tuned: bool = False


SECRETS = (
    Kept("prompt", "span_exact", "kl", "tpot_ms", ("bytes_to_untrusted", "bytes_to_trusted")),
    Kept("weights", "rec_scratch", "kl", "tpot_ms", ("bytes_to_untrusted", "bytes_to_trusted")),
    Kept("tuned texts", "token_recovery", "accuracy", "tune_s", ("tune_bytes",), tuned=True),
)
"""What the lab's defenses keep secret."""


@dataclass(frozen=True)
class SecretRow:
    """A defense in the group of its secret.

    Attributes:
        secret: what it keeps.
        battery: the defense with all its attacks.
        leak: what the best of them recovers.
        chance: the level of an attack that learned nothing; None where none was measured.
        time: what it takes, and ``slower`` how many times what no defense takes; None where that was not run.
        traffic: bytes.
        link: seconds a request's traffic would take over the modelled link; None where none is modelled.
    """

    secret: Kept
    battery: Battery
    leak: Score
    chance: float | None
    time: Score | None
    slower: float | None
    traffic: float | None
    link: Score | None

    @property
    def utility(self) -> Score | None:
        """What the user is left with."""
        return self.battery.common(self.secret.utility)


def rows_by_secret(frame: pd.DataFrame) -> list[SecretRow]:
    """The defenses of a frame that an attack was tried on, by what they keep secret, no defense first."""
    return list(_rows(batteries(frame)))


def has_several_secrets(frame: pd.DataFrame) -> bool:
    """Whether the defenses of a frame keep different things, so that no metric of leaks is common to all."""
    return len({row.secret for row in rows_by_secret(frame)}) > 1


def _rows(found: Sequence[Battery]) -> Iterator[SecretRow]:
    for secret in SECRETS:
        for battery in found:
            leak = battery.best(secret.leak)
            if leak is None or not battery.tested or bool(leak.design.parts["task"].name) is not secret.tuned:
                continue
            time = battery.common(secret.time)
            plain = _unprotected(found, battery, secret)
            parts = [score for name in secret.traffic if (score := battery.common(name)) is not None]
            traffic = sum(score.value for score in parts) if parts else None
            slower = time.value / plain.value if time and plain and plain.value else None
            chance, link = _chance(found, battery, secret.leak), battery.common("modelled_s")
            yield SecretRow(secret, battery, leak, chance, time, slower, traffic, link)


def _unprotected(found: Sequence[Battery], battery: Battery, secret: Kept) -> Score | None:
    """The time of no defense in the same setting."""
    none = (one for one in found if one.name == NOBODY and one.setting == battery.setting)
    return next((score for one in none if (score := one.common(secret.time)) is not None), None)


def _chance(found: Sequence[Battery], battery: Battery, metric: str) -> float | None:
    """The highest level of who learned nothing: the attack's own control, and what reads no message, of any defense.

    Guesses that read nothing of a defense are equally good beside each of one setting: one of them is run once. Where
    the best attack picked one of several streams, so might anybody, blindly.
    """
    alike = [one for one in found if one.setting == battery.setting]
    levels = [score.value for one in alike for score in one.scores.get(metric, ()) if is_baseline(score.attack)]
    own, best = battery.chance(metric), battery.best(metric)
    levels += [own.value] if own is not None else []
    levels += [one.value for one in battery.scores.get("stream_chance", ()) if best is not None and one.id == best.id]
    return max(levels, default=0.0 if CARDS[metric].chance == "0" else None)


def by_secret(frame: pd.DataFrame, title: str = "Every kind of defense, by what is secret") -> Table:
    """One row a defense: what its best attack recovers beside chance, and what it costs in utility, time and traffic.

    Args:
        frame: as :func:`smd_research.records.load` gives it.
        title: heading of the table.
    """
    linked = has_metric(frame, "modelled_s")
    columns = (
        *(Column(name, align="left") for name in ("secret", "defense", "best attack")),
        *(Column("recovered", "by the best attack"), Column("chance")),
        *(Column("utility"), Column("time"), Column("slower", "than none"), Column("traffic", "bytes")),
        *([Column("on the link", "s a request, modelled")] if linked else []),
    )
    rows = rows_by_secret(frame)
    notes = (
        "Recovered: of the prompt its secrets; of the weights the way to the original's loss from that of a model "
        "trained from scratch on the attacker's data; of tuned texts their running tokens.",
        "Utility: KL in nats from the plain model, or accuracy of the tuned task. Time: of a token, or of tuning.",
    )
    entries = tuple(_entries(row, linked) for row in rows)
    return Table(title, columns, entries, notes, sample_of_frame(frame))


def _entries(row: SecretRow, linked: bool) -> tuple[TableEntry, ...]:
    slower = TableEntry(numbers.MISSING if row.slower is None else f"{row.slower:.1f}x", ids=(row.leak.id,))
    traffic = TableEntry(
        numbers.MISSING if row.traffic is None else numbers.byte_count(row.traffic), ids=(row.leak.id,)
    )
    return (
        TableEntry(row.secret.name),
        TableEntry(row.battery.defense),
        TableEntry(row.leak.attack, ids=(row.leak.id,)),
        entry(row.leak, "leak"),
        TableEntry(numbers.MISSING if row.chance is None else numbers.share(row.chance)),
        _with_label(row.utility),
        _with_label(row.time, labelled=False),
        slower,
        traffic,
        *([_with_label(row.link, labelled=False)] if linked else []),
    )


def _with_label(score: Score | None, labelled: bool = True) -> TableEntry:
    """A figure with its name and unit, since the rows of one column are of several metrics."""
    if score is None:
        return TableEntry(numbers.MISSING)
    figures = (score.value, score.low, score.high, score.n, (score.id,))
    return TableEntry(f"{CARDS[score.quantity].label} {written(score)}" if labelled else written(score), "", *figures)


def written(score: Score) -> str:
    """A value with its unit; a share in percent."""
    card = CARDS[score.quantity]
    return (
        numbers.share(score.value) if card.ceiling == 1.0 else f"{numbers.quantity(score.value)} {card.unit}".rstrip()
    )
