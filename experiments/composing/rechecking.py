"""The layers by which a folder that came from elsewhere is checked; each finding is a line.

Files against their checksums; records against the schema, their configuration and their items; all that is made of
records against what they make here. Whoever changes a number and every checksum after it has to change what it was
computed from as well: the last layer, cells run again, looks at that.
"""

import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from experiments.composing.publication import BENCHES, RECORDS, Gathered, made_files
from experiments.trials.rescoring import obstacle, rescored
from smd_research.core.errors import RecordError
from smd_research.core.quoting import quoted
from smd_research.metrics import CARDS, SCORES, Estimate, summarise
from smd_research.records import Record, read_items
from smd_research.records.manifest import Manifest
from smd_research.records.packing import Row, checked, packed_rows
from smd_research.reports.differing import differing_csv, differing_text

_ALIKE = 1e-9
"""Relative difference of two numbers that are one number, added up in another order."""

_LARGEST = 2**31


@dataclass
class Looked:
    """What the records of a folder are, and what was found.

    Attributes:
        measured: the records that hold, by packed file.
        findings: what is wrong with the others, a line each.
        scored: how many were scored again from their items.
        not_scored: how many could not be, by the reason.
    """

    measured: Gathered
    findings: list[str] = field(default_factory=list)
    scored: int = 0
    not_scored: dict[str, int] = field(default_factory=dict)


def look(folder: Path, files: Sequence[str]) -> Looked:
    """Read the records of a folder and check each by itself.

    Args:
        folder: that holds the files.
        files: those that are there, none of them a link.
    """
    rows: dict[str, list[Row]] = {}
    records: dict[str, list[Record]] = {}
    looked = Looked(Gathered(rows, records))
    for name in files:
        if not _is_of(name, RECORDS, ".parquet"):
            continue
        for row, record in _held(folder, name, looked):
            rows.setdefault(Path(name).stem, []).append(row)
            records.setdefault(Path(name).stem, []).append(record)
    return looked


def _held(folder: Path, name: str, looked: Looked) -> Iterator[tuple[Row, Record]]:
    """The records of a packed file that can be read; what is wrong is entered."""
    seen: set[str] = set()
    try:
        if (folder / name).stat().st_size > _LARGEST:
            raise RecordError(f"{folder / name} is too large")
        rows = list(packed_rows(folder / name))
    except RecordError as error:
        looked.findings.append(_said_of(name, error, folder))
        return
    for row in rows:
        try:
            record = checked(folder / name, *row)
        except RecordError as error:
            looked.findings.append(_said_of(name, error, folder))
            continue
        where = f"{name}: record {row[0]}"
        if record.cell.id in seen:
            looked.findings.append(f"{where} stands twice")
            continue
        seen.add(record.cell.id)
        try:
            looked.findings += [f"{where}: {line}" for line in (*_configuration(row, record), *_scores(record, looked))]
        except Exception as error:  # whatever odd items make their scores do, they are what is wrong
            looked.findings.append(f"{where}: its items cannot be scored ({type(error).__name__})")
        else:
            yield row, record


def _said_of(name: str, error: RecordError, folder: Path) -> str:
    """An error as a finding: the file's name once, and not where the folder lies."""
    said = str(error).replace(f"{folder}/", "").removeprefix(name).lstrip(": ")
    return f"{name}: {quoted(said)}"


def _configuration(row: Row, record: Record) -> Iterator[str]:
    """Whether ``config.yaml`` is that of the cell; it is compared, not read. Line breaks in a text may differ."""
    document = json.loads(row[1]["metrics.json"])["cell"]
    cell = {key: value for key, value in document.items() if key not in ("id", "readable")}
    written = yaml.safe_dump(cell, sort_keys=False, allow_unicode=True).encode()
    if written.split() != row[1]["config.yaml"].split():
        yield f"config.yaml is that of another cell than {record.cell.id}"


def _scores(record: Record, looked: Looked) -> Iterator[str]:
    """Metrics that its items contradict."""
    why = obstacle(record) or ("" if record.scored == SCORES else f"scored by version {record.scored}")
    if why:
        looked.not_scored[why] = looked.not_scored.get(why, 0) + 1
        yield from _means(record)
        return
    items = read_items(record.items)
    if any(one.guess_ids for one in items) and not any("control_token_accuracy" in one.metrics for one in items):
        yield "its items hold guesses without a control, so that no token decides their scores"
    anew = rescored(record)
    looked.scored += 1
    for name, estimate in anew.metrics.items():
        told = record.metrics.get(name)
        if told is None or not _same(told, estimate):
            stated = "nothing" if told is None else f"{told.mean:.6g} ({told.low:.6g} to {told.high:.6g})"
            found = f"{estimate.mean:.6g} ({estimate.low:.6g} to {estimate.high:.6g})"
            yield f"{quoted(name)} is {stated}, its items give {found}"
    for theirs, ours in zip(record.items.to_dict("records"), anew.items.to_dict("records"), strict=False):
        odd = [key for key in ours if isinstance(ours[key], float) and not _alike(theirs.get(key), ours[key])]
        if odd:
            where = quoted(ours["prompt_id"])
            yield f"prompt {where}, {quoted(odd[0])} is {theirs.get(odd[0])}, its tokens give {ours[odd[0]]:.6g}"


def _means(record: Record) -> Iterator[str]:
    """Metrics that are not the means of the values that its items hold of them.

    Of running text none are means, and where a model is tuned, of a part that the items may not hold.
    """
    items = read_items(record.items)
    if record.cell.task is not None and any("nll_tokens" in one.metrics for one in items):
        return
    for name, told in record.metrics.items():
        values = [one.metrics.get(name, math.nan) for one in items]
        held = sum(not math.isnan(value) for value in values)
        if name not in CARDS or not held or (record.cell.task is not None and held != told.n):
            continue
        found = summarise(name, values)
        if held != told.n:
            yield f"{quoted(name)} is of {told.n} prompts, its items hold {held}"
        elif not _same(told, found):
            yield f"{quoted(name)} is {told.mean:.6g}, its items give {found.mean:.6g}"


def _same(one: Estimate, other: Estimate) -> bool:
    ends = zip((one.mean, one.low, one.high), (other.mean, other.low, other.high), strict=True)
    return one.n == other.n and all(_alike(*pair) for pair in ends)


def _alike(one: object, other: float) -> bool:
    if not isinstance(one, int | float):
        return other != other
    return one == other or (one != one and other != other) or abs(one - other) <= _ALIKE * max(1.0, abs(one))


def made_again(folder: Path, files: Sequence[str], told: Manifest, measured: Gathered) -> Iterator[str]:
    """What differs in all that is made of records: tables by row and column, every other file by name.

    Args:
        folder: that holds the files.
        files: those that are there, none of them a link.
        told: its manifest, for title, licence and what its makers say.
        measured: its records.
    """
    try:
        made = made_files(measured, folder, told)
    except Exception as error:  # whatever odd records make a table or page do
        yield f"its tables and pages cannot be made ({type(error).__name__}: {quoted(error)})"
        return
    yield from _beside(folder, files, made)
    for name in sorted(made.keys() - set(files) - told.files.keys()):
        yield f"{name}: missing, its records make it"


def _beside(folder: Path, files: Sequence[str], made: Mapping[str, bytes]) -> Iterator[str]:
    for name in files:
        if _is_of(name, RECORDS, ".parquet") or _is_of(name, BENCHES, ".json"):
            continue
        if name not in made:
            yield f"{name}: nothing here makes such a file of its records"
        elif (folder / name).stat().st_size > _LARGEST:
            yield f"{name}: larger than what its records make"
        elif (found := (folder / name).read_bytes()) != made[name]:
            yield from _told_apart(name, found, made[name])


def _told_apart(name: str, found: bytes, made: bytes) -> Iterator[str]:
    if name.startswith("metrics/"):
        if not _same_frame(found, made):
            yield f"{name}: other figures than its records hold"
        return
    if name.startswith("board/"):
        yield f"{name}: another page than its records make; do not open it"
        return
    try:
        text = found.decode()
    except UnicodeDecodeError:
        yield f"{name}: no text"
        return
    compare = differing_csv if name.endswith(".csv") else differing_text
    yield from list(compare(name, text, made.decode())) or [f"{name}: other characters than its records make"]


def _same_frame(found: bytes, made: bytes) -> bool:
    """Whether two Parquet files hold the same columns and values; nothing else that is in them is read."""
    try:
        files = [pq.ParquetFile(io.BytesIO(one)) for one in (found, made)]
        if not files[0].schema_arrow.equals(files[1].schema_arrow):
            return False
        theirs, ours = (one.read(use_threads=False).replace_schema_metadata(None) for one in files)
    except (pa.ArrowException, OSError):
        return False
    return bool(theirs.to_pandas().equals(ours.to_pandas()))


def _is_of(name: str, folder: str, ending: str) -> bool:
    return name.startswith(f"{folder}/") and name.count("/") == 1 and name.endswith(ending)
