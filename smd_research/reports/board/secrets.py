"""What is to be kept in each cell: the prompt, the weights, or the texts that a model is tuned on."""

from collections.abc import Sequence

from smd_research.core.cell import component_name
from smd_research.metrics import exposure, restoration, weight_leaks
from smd_research.metrics.cards import find_cards
from smd_research.records import Record
from smd_research.reports.batteries import NOBODY

PROMPT, WEIGHTS, TUNED = "prompt", "weights", "tuned texts"
"""The words of :data:`smd_research.reports.tables.by_secret.SECRETS`."""

_OF_WEIGHTS = frozenset(card.name for module in (exposure, restoration, weight_leaks) for card in find_cards(module))


def secrets_of(records: Sequence[Record]) -> list[str]:
    """The secret of each record: one with a task keeps its texts, one that is scored by its weights keeps these.

    Cells without figures, which failed or do not apply, keep what others of their defense do.
    """
    keepers = {component_name(one.cell.defense) for one in records if _OF_WEIGHTS & one.metrics.keys()} - {NOBODY}
    return [_secret(one, keepers) for one in records]


def _secret(record: Record, keepers: set[str]) -> str:
    if record.cell.task:
        return TUNED
    scored = bool(_OF_WEIGHTS & record.metrics.keys())
    return WEIGHTS if scored or component_name(record.cell.defense) in keepers else PROMPT
