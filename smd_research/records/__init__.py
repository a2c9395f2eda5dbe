"""Storage of what each cell and bench left, read back as one frame; how it is shown is the business of reports."""

from smd_research.records.environment import environment
from smd_research.records.frame import (
    CorruptRecordWarning,
    frame_of,
    frame_of_sweep,
    has_metric,
    load,
    read_record,
    readable,
    records_in,
    with_options,
)
from smd_research.records.items import Item, items_frame, read_items
from smd_research.records.packing import pack, packed, unpack
from smd_research.records.record import NO_TEXTS, Record, Status, without_texts
from smd_research.records.store import Store, decide, read

__all__ = [
    "NO_TEXTS",
    "CorruptRecordWarning",
    "Item",
    "Record",
    "Status",
    "Store",
    "decide",
    "environment",
    "frame_of",
    "frame_of_sweep",
    "has_metric",
    "items_frame",
    "load",
    "pack",
    "packed",
    "read",
    "read_items",
    "read_record",
    "readable",
    "records_in",
    "unpack",
    "with_options",
    "without_texts",
]
