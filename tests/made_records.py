"""Records made by hand, for tests of storage and of reports."""

from typing import Any

from smd_research.core.cell import Cell
from smd_research.data.prompts import TokenSpan
from smd_research.metrics import Estimate
from smd_research.records import Item, Record, Status, items_frame


def make_cell(**changes: Any) -> Cell:
    values: dict[str, Any] = {
        "model": {"name": "embedded"},
        "data": {"name": "synthetic", "split": "evaluation"},
        "defense": {"name": "smd", "_target_": "smd_research.defenses.smd.SMD"},
        "attack": {"name": "partial_attention_inversion", "steps": 32},
        "n_prompts": 2,
        "max_new_tokens": 32,
        "prompt_tokens": 16,
        "versions": {"defense": 1, "attack": 1},
    }
    return Cell(**(values | changes))


def make_record(
    cell: Cell | None = None, accuracy: float = 0.5, status: Status = Status.OK, reason: str = ""
) -> Record:
    items = items_frame(
        Item(
            f"p{i}",
            {"token_accuracy": accuracy},
            ["the", " patient", " Ann", " Lee"],
            ["the", " patient", " Bob", None],
            [TokenSpan(2, 4, "name")],
        )
        for i in range(2)
    )
    metrics = {"token_accuracy": Estimate(accuracy, 0.1, 0.9, 2), "kl": Estimate(0.0, n=2)}
    if status is not Status.OK:
        metrics, items = {}, items_frame([])
    return Record(status, cell or make_cell(), reason, metrics, items, {"python": "3.12"})
