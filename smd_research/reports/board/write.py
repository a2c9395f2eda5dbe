"""The folder of a board: its pages as they are shipped, and its documents as scripts.

A page opened from a disk may fetch nothing, but it may add a script. So each document is a script that hands one value
to the page: what all pages share, and on demand a table, a cell, or the prompts that cells were given.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from smd_research.core.errors import RecordError
from smd_research.records import Record, Status, without_texts
from smd_research.records.folders import free_for, replace_folder
from smd_research.reports.board.gather import board_document, cell_document
from smd_research.reports.board.sources import Sourced
from smd_research.reports.board.tables import BoardTable, table_document, table_head
from smd_research.reports.render.page_style import colours, rules

ASSETS = Path(__file__).with_name("assets")
"""The page, its style and its scripts; ``echarts`` holds the library that draws (Apache ECharts 6.1.0, its
``dist/echarts.min.js`` as npm gives it), with its licence and those of what is in it."""

MARK = "data/board.js"
"""The file by which a folder is known as a board, so that it may be replaced."""

_HARMLESS = {"<": "\\u003c", "\u2028": "\\u2028", "\u2029": "\\u2029"}


def write_board(found: Sequence[Sourced], out: Path, tables: Sequence[BoardTable] = (), *, texts: bool = True) -> Path:
    """Write a board; one that stood there is replaced in one step.

    Args:
        found: the records, see :func:`smd_research.reports.board.sources.sourced`.
        out: the folder; created.
        tables: made of the same records.
        texts: whether prompts and guesses are shown; else their numbers alone, and no reason of a failure, which may
            quote them.

    Returns:
        The page to open.

    Raises:
        RecordError: ``out`` is a file, or a folder with other things in it, or cannot be written.
    """
    free_for_board(out)
    try:
        replace_folder(out, board_files(found, tables, texts=texts))
    except OSError as error:
        raise RecordError(f"cannot write {out}: {error.strerror or error}; choose another out=") from error
    return out / "index.html"


def board_files(found: Sequence[Sourced], tables: Sequence[BoardTable] = (), *, texts: bool = True) -> dict[str, bytes]:
    """The files of a board, by name; the arguments are those of :func:`write_board`."""
    shown = found if texts else [replace(one, record=_quiet(one.record)) for one in found]
    return {**_pages(), **_documents(shown, tables)}


def free_for_board(out: Path) -> None:
    """Refuse a place where something else stands.

    Raises:
        RecordError: ``out`` is a file, or a folder that is neither empty nor a board.
    """
    free_for(out, MARK, "a board")


def script(kind: str, name: str, document: Any) -> bytes:
    """A document as a script that hands it to the page; no text in it can end the script or a line."""
    text = json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character, escaped in _HARMLESS.items():
        text = text.replace(character, escaped)
    return f"board.receive({json.dumps(kind)},{json.dumps(name)},{text});\n".encode()


def _quiet(record: Record) -> Record:
    """A record without what may quote a prompt."""
    failed = record.status is Status.FAILED
    return replace(without_texts(record), reason="the reason stands in the record" if failed else record.reason)


def _pages() -> dict[str, bytes]:
    """What every board has: page, style, scripts, the library and its licence."""
    files = {str(p.relative_to(ASSETS)): p.read_bytes() for p in sorted(ASSETS.rglob("*")) if p.is_file()}
    return {**files, "colours.css": f"{colours()}{rules()}\n".encode()}


def _documents(found: Sequence[Sourced], tables: Sequence[BoardTable]) -> dict[str, bytes]:
    files = {MARK: script("board", "", board_document(found, [table_head(one) for one in tables]))}
    for one in tables:
        both = {"table": table_document(one.table), "claims": table_document(one.claims) if one.claims else None}
        files[f"data/tables/{one.name}.js"] = script("table", one.name, both)
    for sourced in found:
        document, prompts = cell_document(sourced)
        cell = sourced.record.cell.id
        files[f"data/cells/{cell}.js"] = script("cell", cell, document)
        if prompts:
            name, texts = prompts
            files[f"data/prompts/{name}.js"] = script("prompts", name, texts)
    return files
