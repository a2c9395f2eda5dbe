"""Records: what each cell left, read back as one frame; tables, figures and reports read records only."""

from smd_research.records.environment import environment
from smd_research.records.frame import CorruptRecordWarning, frame_of, frame_of_sweep, load
from smd_research.records.items import Item, items_frame, read_items, token_texts
from smd_research.records.record import Record, Status
from smd_research.records.store import Store, decide, read

__all__ = [
    "CorruptRecordWarning",
    "Item",
    "Record",
    "Status",
    "Store",
    "decide",
    "environment",
    "frame_of",
    "frame_of_sweep",
    "items_frame",
    "load",
    "read",
    "read_items",
    "token_texts",
]
