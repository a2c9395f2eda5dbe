"""Two sides over the same prompts, metric by metric."""

from collections import Counter
from collections.abc import Mapping, Sequence

from smd_research.metrics import CARDS
from smd_research.reports.comparing import Compared
from smd_research.reports.render import numbers
from smd_research.reports.sides import in_common
from smd_research.reports.tables.table import Column, Table, TableEntry

HOW_COMPARED = (
    "A - B is the mean difference prompt by prompt, with its 95 % interval over prompts. p: McNemar's exact test where "
    "both sides are 0 or 1, else that of the interval."
)

_LEAST = 1e-4


def comparison_table(found: Sequence[Compared], title: str) -> Table:
    """A row for each metric and pair of cells: either mean, the difference, its probability, the better side.

    Args:
        found: as :func:`smd_research.reports.comparing.compare_all` gives it.
        title: heading, which says what A and B are.
    """
    told = in_common([one.cells for one in found])
    labels = list(told[0]) if told else []
    heads = [*(Column(name, align="left") for name in labels), Column("metric", align="left")]
    heads += [Column(name) for name in ("A", "B", "A - B", "95 % interval", "p")]
    heads += [
        Column("p, Holm", f"of {found[0].among}" if found else ""),
        Column("better", align="left"),
        Column("flipped"),
        Column("n"),
    ]
    rows = tuple(_row(one, row) for one, row in zip(found, told, strict=True))
    return Table(title, tuple(heads), rows, (HOW_COMPARED, *_notes(found)))


def _row(one: Compared, told: Mapping[str, str]) -> tuple[TableEntry, ...]:
    card, ids = CARDS[one.metric], one.ids
    share = card.scale in ("rate", "excess")

    def written(value: float) -> str:
        if share:
            return ("-" if value < 0 else "") + numbers.share(abs(value))
        return numbers.quantity(value, card.unit, like=max(one.means, key=abs))

    interval = f"{written(one.low)} to {written(one.high)}"
    difference = TableEntry(
        written(one.difference), value=one.difference, low=one.low, high=one.high, n=one.n, ids=ids
    )  # fmt: skip
    return (
        *(TableEntry(text if card.kind == "privacy" or name != "attack" else "any") for name, text in told.items()),
        TableEntry(card.label),
        *(
            TableEntry(written(mean), value=mean, n=one.n, ids=(cell,))
            for mean, cell in zip(one.means, ids, strict=True)
        ),
        difference,
        TableEntry(interval),
        *(TableEntry(_probability(p), value=p) for p in (one.p, one.adjusted)),
        TableEntry(one.better.upper() or "undecided"),
        TableEntry(str(len(one.flips)), value=float(len(one.flips))),
        TableEntry(str(one.n), value=float(one.n)),
    )


def _probability(p: float) -> str:
    return f"< {_LEAST:.4f}" if p < _LEAST else f"{p:.4f}" if p < 0.1 else f"{p:.2f}"


def _notes(found: Sequence[Compared]) -> list[str]:
    """Which way a metric is better, and which prompts are no pair."""
    ways = Counter((CARDS[one.metric].better, CARDS[one.metric].label) for one in found)
    notes = [
        f"Better is {way}: {', '.join(label for better, label in ways if better == way)}."
        for way in ("lower", "higher")
        if any(better == way for better, _ in ways)
    ]
    reasons: Counter[str] = Counter()
    for one in {one.ids: one for one in found}.values():
        reasons.update(one.unpaired)
    return notes + [f"No pair: {', '.join(f'{count} {why}' for why, count in reasons.items())}."] * bool(reasons)
