"""What a record must look like: the one place that says so.

A record may come from an earlier version, from another person, or from a disk that lost a bit. Whatever is wrong with
one is found here, when it is read, so that nobody who reads records has to expect it: tables and reports of a folder
leave the odd one out and name it.
"""

import hashlib
import io
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from smd_research.core.cell import COMPONENTS, OPTIONAL, component_name
from smd_research.records.items import TEXTS
from smd_research.records.record import Record, Status, parse_metrics

FILES = ("config.yaml", "metrics.json", "items.parquet")
"""The files that ``environment.json`` holds the checksums of."""

WRITTEN = (Status.OK, Status.FAILED, Status.NOT_APPLICABLE)
"""How a cell that left a record can have ended."""

_DEPTH = 32
_ROWS = 10_000_000
_COUNTS = ("n_prompts", "max_new_tokens", "prompt_tokens", "held_out")
_COUNTS_OR_NULL = ("prompt_tokens", "held_out")
_WORDS = ("dtype", "wire_dtype", "transport", "device", "command")


class SchemaError(ValueError):
    """What is wrong with a record, in a few words."""


def parsed(folder: Path, contents: Mapping[str, bytes]) -> Record:
    """The record that the files of a folder hold.

    Args:
        folder: the record's.
        contents: of its files, by name.

    Raises:
        SchemaError: when they do not hold together.
    """
    environment = _document(contents, "environment.json")
    _checksums(environment.pop("files", None), contents)
    _require(isinstance(environment.get("parameters", {}), dict), "environment.json: parameters is no mapping")
    special = environment.get("special_ids", [])
    _require(isinstance(special, list) and all(map(_is_count, special)), "environment.json: special_ids are no ids")
    document = _document(contents, "metrics.json")
    _metrics(document)
    _cell(document["cell"])
    status, reason, cell, metrics = parse_metrics(document)
    _require(status in WRITTEN, f"metrics.json: status {status} is never written")
    _require(document["cell"].get("id") == cell.id, "metrics.json: the cell has another id than it says")
    _require(folder.resolve().name == f"{cell.readable}-{cell.id}", "it holds another cell than its name says")
    frame, texts = _items(contents["items.parquet"]), document.get("texts", True)
    _require(texts or _bare(frame), "items.parquet holds texts, which metrics.json says were not recorded")
    scored = document.get("scored", 1)
    return Record(status, cell, reason, metrics, frame, environment, folder, scored, texts)


def _require(held: bool, otherwise: str) -> None:
    if not held:
        raise SchemaError(otherwise)


def _document(contents: Mapping[str, bytes], name: str) -> dict[str, Any]:
    """A JSON file as plain values that every reader can bear: finite, bounded, each key once, of true characters."""
    try:
        document = json.loads(contents[name].decode(), object_pairs_hook=_once)
        _plain(document, _DEPTH)
    except (ValueError, RecursionError) as error:
        raise SchemaError(f"{name}: {error}") from error
    _require(isinstance(document, dict), f"{name} is no mapping")
    return document  # type: ignore[no-any-return]


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    _require(len(found) == len(pairs), "a key stands twice")
    return found


def _plain(value: Any, depth: int) -> None:
    _require(depth > 0, "it is nested too deep")
    match value:
        case dict():
            for key, item in value.items():
                _plain(key, depth - 1)
                _plain(item, depth - 1)
        case list():
            for item in value:
                _plain(item, depth - 1)
        case str():
            value.encode()  # a lone surrogate cannot be written to any page or table
        case int():
            _require(abs(value) < 2**63, "a number is too large")
        case float():
            _require(math.isfinite(value), "a number is not finite")


def _checksums(given: Any, contents: Mapping[str, bytes]) -> None:
    _require(isinstance(given, dict) and set(given) == set(FILES), "environment.json: checksums are missing")
    for name in FILES:
        same = hashlib.sha256(contents[name]).hexdigest() == given[name]
        _require(same, f"{name} does not match its checksum")


def _metrics(document: Mapping[str, Any]) -> None:
    known = isinstance(document.get("status"), str) and document["status"] in list(Status)
    _require(known, "metrics.json: its status is unknown")
    _require(isinstance(document.get("reason"), str | None), "metrics.json: its reason is no text")
    _require(_is_count(document.get("scored", 1)), "metrics.json: the version of its scores is no count")
    _require(isinstance(document.get("texts", True), bool), "metrics.json: texts is neither true nor false")
    metrics = document.get("metrics")
    _require(isinstance(metrics, dict), "metrics.json: metrics is no mapping")
    for name, estimate in document["metrics"].items():
        wrong = f"metrics.json: {name} is no estimate"
        _require(isinstance(estimate, dict) and estimate.keys() >= {"mean", "low", "high", "n"}, wrong)
        low, high = (estimate[end] for end in ("low", "high"))
        _require(all(estimate[key] is None or _is_number(estimate[key]) for key in ("mean", "low", "high")), wrong)
        _require(
            low is None or high is None or low <= high, f"metrics.json: the interval of {name} ends before it begins"
        )
        _require(_is_count(estimate["n"]), wrong)


def _cell(cell: Any) -> None:
    _require(isinstance(cell, dict), "metrics.json: its cell is no mapping")
    for part in (*COMPONENTS, *OPTIONAL):
        component = cell.get(part)
        if component is None and (part in OPTIONAL or part not in cell):
            continue
        _require(isinstance(component, dict), f"metrics.json: the cell's {part} is no mapping")
        named = all(isinstance(component.get(key), str | None) for key in ("name", "_target_"))
        _require(named and _is_name(component_name(component)), f"metrics.json: the cell's {part} has no proper name")
    for name in _COUNTS:
        absent = name not in cell or (name in _COUNTS_OR_NULL and cell[name] is None)
        _require(absent or _is_count(cell[name]), f"metrics.json: the cell's {name} is no count")
    _require(_is_whole(cell.get("seed", 0)), "metrics.json: the cell's seed is no whole number")
    for name in _WORDS:
        _require(isinstance(cell.get(name, ""), str), f"metrics.json: the cell's {name} is no text")
    versions = cell.get("versions", {})
    _require(isinstance(versions, dict) and all(map(_is_whole, versions.values())), "metrics.json: odd versions")


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return _is_whole(value) and value >= 0


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_name(word: str) -> bool:
    """Whether a terminal can show a component's name: brackets would be taken for markup there."""
    return word.isprintable() and not set("[]") & set(word) and bool(word)


def _items(content: bytes) -> pd.DataFrame:
    """The per-prompt results, of columns as ``items_frame`` makes them."""
    try:
        file = pq.ParquetFile(io.BytesIO(content))
        _head(file)
        # One thread: Arrow's pool, once it has read from a Python object, may hang or abort when the interpreter ends.
        # Without what pandas wrote beside the data: it says nothing more, and could say something wrong.
        table = file.read(use_threads=False).replace_schema_metadata(None)
        table.validate(full=True)
    except (pa.ArrowException, OSError) as error:
        raise SchemaError("items.parquet is not a Parquet file") from error
    if "prompt_id" in table.column_names:
        _require(not table["prompt_id"].null_count, "items.parquet: prompt_id has gaps")
    _aligned(table, "truth_ids", "truth_tokens")
    _aligned(table, "guess_ids", "truth_ids")
    frame: pd.DataFrame = table.to_pandas()
    _counted(frame)
    return frame


def _counted(frame: pd.DataFrame) -> None:
    """Refuse more secrets than tokens, and more found than there are."""
    for row in frame.reindex(columns=["length", "secrets"]).dropna().to_dict("records") if "secrets" in frame else []:
        for secret in row["secrets"]:
            fits = secret and None not in secret.values() and 0 <= secret["found"] <= secret["count"] <= row["length"]
            _require(bool(fits), "items.parquet: secrets are miscounted")


def _bare(frame: pd.DataFrame) -> bool:
    """Whether items hold no texts."""
    return not any(frame[column].map(len, na_action="ignore").sum() for column in TEXTS if column in frame)


def _head(file: pq.ParquetFile) -> None:
    """What a file says of itself: rows and columns."""
    rows, names = file.metadata.num_rows, file.schema_arrow.names
    _require(rows <= _ROWS, "items.parquet has too many rows")
    _require(len(set(names)) == len(names), "items.parquet: a column stands twice")
    _require(not rows or "prompt_id" in names, "items.parquet names no prompts")
    for column in file.schema_arrow:
        _require(_fits(column.name, column.type, rows), f"items.parquet: {column.name} holds something else")


def _fits(name: str, kind: pa.DataType, rows: int) -> bool:
    if pa.types.is_null(kind):
        return name != "prompt_id" or not rows
    match name:
        case "prompt_id" | "source":
            return _is_text(kind)
        case "truth_ids" | "guess_ids":
            return _is_list(kind, pa.types.is_integer)
        case "truth_tokens" | "guess_tokens":
            return _is_list(kind, _is_text)
        case "spans":
            return _is_list(kind, _is_span)
        case "length":
            return bool(pa.types.is_integer(kind))
        case "secrets":
            return _is_list(kind, _is_secret_count)
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind))


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_list(kind: pa.DataType, of: Callable[[pa.DataType], bool]) -> bool:
    listed = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    return bool(listed and (pa.types.is_null(kind.value_type) or of(kind.value_type)))


def _is_span(kind: pa.DataType) -> bool:
    if not pa.types.is_struct(kind) or {field.name for field in kind} != {"start", "end", "type"}:
        return False
    ends = all(pa.types.is_integer(kind.field(end).type) for end in ("start", "end"))
    return ends and _is_text(kind.field("type").type)


def _is_secret_count(kind: pa.DataType) -> bool:
    if not pa.types.is_struct(kind) or {field.name for field in kind} != {"type", "count", "found"}:
        return False
    counted = all(pa.types.is_integer(kind.field(name).type) for name in ("count", "found"))
    return counted and _is_text(kind.field("type").type)


def _aligned(table: pa.Table, name: str, other: str) -> None:
    """Refuse lists of other lengths than those they are read beside; an empty one is none."""
    if not {name, other} <= set(table.column_names) or pa.types.is_null(table[name].type):
        return
    lengths = pc.fill_null(pc.list_value_length(table[name]), 0)
    if pa.types.is_null(table[other].type):
        beside = pa.scalar(0, lengths.type)
    else:
        beside = pc.fill_null(pc.list_value_length(table[other]), 0)
    fitting = pc.or_(pc.equal(lengths, 0), pc.equal(lengths, beside))
    _require(pc.all(fitting).as_py() is not False, f"items.parquet: {name} does not fit {other}")
    _require(not pc.list_flatten(table[name]).null_count, f"items.parquet: {name} has gaps")
