"""Files as they lie: decoded, unpacked, and taken apart into the rows of a table or the records of JSON."""

import csv
import gzip
import io
import json
import sys
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from smd_research.core.errors import ConfigError


def kind_of(file: Path) -> str:
    """A file's suffix without that of its packing, e.g. ``.csv`` of ``notes.csv.gz``."""
    return Path(file.name.removesuffix(".gz")).suffix.lower()


def stem_of(file: Path) -> str:
    """A file's name without its suffixes of kind and packing."""
    return Path(file.name.removesuffix(".gz")).stem


def text_of(file: Path, setting: str) -> str:
    """The text of a UTF-8 file, unpacked where its name ends in ``.gz``, with the line ends that it has.

    Args:
        file: to read.
        setting: the option that named it, for the message.

    Raises:
        ConfigError: for a file that is missing, a folder, cannot be read or is not UTF-8.
    """
    if file.is_dir():
        raise ConfigError(f"{file} is a folder: set {setting} to a file (data=text reads a folder of .txt files)")
    try:
        raw = file.read_bytes()
        return (gzip.decompress(raw) if file.suffix == ".gz" else raw).decode("utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(f"{file} does not exist; set {setting} to a file") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: byte {error.start} is not UTF-8; save the file as UTF-8") from None
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{file}: cannot be read ({reason}); check its permissions and that it is whole") from None


def table_rows(file: Path, text: str) -> Iterator[tuple[int, Sequence[str]]]:
    """The rows of a table that are not empty, each with the number of its last line.

    ``.tsv`` is separated by tabs and unquoted; all else by commas, and a quoted field holds whatever it holds.

    Raises:
        ConfigError: for a quote that is never closed and the like.
    """
    csv.field_size_limit(sys.maxsize)
    if kind_of(file) == ".tsv":
        lines = (line.rstrip("\r") for line in text.split("\n"))
        rows = csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
    else:
        rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        for row in rows:
            if row:
                yield rows.line_num, row
    except csv.Error as error:
        raise ConfigError(
            f"{file}, line {rows.line_num}: {error}; quote the field, or save as .tsv, which is unquoted"
        ) from None


def json_records(file: Path, text: str) -> Iterator[tuple[str, Any]]:
    """What a JSON file lists, each with its place: the members of an array, or one value a line.

    A ``.json`` file may also be one object, of which all values are objects: those are listed.

    Raises:
        ConfigError: for what is not JSON. The message quotes nothing of it, which may hold a secret.
    """
    if text.lstrip().startswith("[") or (kind_of(file) == ".json" and _is_one_object(text)):
        whole = _json(f"{file}", text)
        listed = whole if isinstance(whole, list) else list(whole.values())
        if isinstance(whole, dict) and not all(isinstance(value, dict) for value in listed):
            listed = [whole]
        for number, value in enumerate(listed, start=1):
            yield f"{file}, entry {number}", value
        return
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield f"{file}, line {number}", _json(f"{file}, line {number}", line)


def _is_one_object(text: str) -> bool:
    """Whether a file is no list of lines: its first line is no value by itself."""
    first = next((line for line in text.split("\n") if line.strip()), "")
    try:
        json.loads(first)
    except (ValueError, RecursionError):
        return True
    return text.strip() == first.strip()


def _json(where: str, text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        reason = f"{error.msg} at character {error.pos + 1}"
    except (ValueError, RecursionError) as error:  # a number or a nesting without end
        reason = type(error).__name__
    raise ConfigError(f"{where}: not JSON ({reason}); write one object a line, or an array of objects")
