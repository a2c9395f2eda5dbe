"""A board: records as one static folder of pages to look at, filter and follow, without a server or a network."""

from smd_research.reports.board.sources import PackedFile, Sourced, packed_files, packed_paths, sourced, sourced_in
from smd_research.reports.board.tables import BoardTable
from smd_research.reports.board.write import board_files, free_for_board, write_board

__all__ = [
    "BoardTable",
    "PackedFile",
    "Sourced",
    "board_files",
    "free_for_board",
    "packed_files",
    "packed_paths",
    "sourced",
    "sourced_in",
    "write_board",
]
