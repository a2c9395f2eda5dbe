"""The manifest of a published folder: who made it how, and the checksum of every other file in it.

A folder that comes from elsewhere is walked, never trusted: links and what is no file are refused, and no name that a
manifest gives is ever opened.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from smd_research.core.errors import RecordError

MANIFEST = "manifest.json"
"""Its name in the folder, by which a folder is known as a published one."""

FORMAT = 1

_LARGEST = 2**26
_LEFT_BY_TRANSPORT = (".git", ".cache", ".gitattributes")
"""What git and the hub put beside the files that they carry."""

_TEXTS = ("made_by", "commit", "command", "licence", "title", "about")


@dataclass(frozen=True)
class Manifest:
    """What a manifest says.

    Attributes:
        made_by: name and version of what made the folder.
        commit: of its sources; empty where unknown.
        command: that made it.
        licence: of the results, as the hub spells it.
        title: of the results.
        about: what their makers say of them, Markdown; may be empty.
        files: SHA-256 in hexadecimal digits by name, with ``/`` between folders.
    """

    made_by: str
    commit: str
    command: str
    licence: str
    title: str
    about: str = ""
    files: Mapping[str, str] = field(default_factory=dict, repr=False)


def manifest_bytes(manifest: Manifest) -> bytes:
    """The content of the file."""
    told = {name: getattr(manifest, name) for name in _TEXTS}
    document = {"format": FORMAT, **told, "files": dict(sorted(manifest.files.items()))}
    return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()


def checksums(files: Mapping[str, bytes]) -> dict[str, str]:
    """The checksums of files, by name."""
    return {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a folder.

    Raises:
        RecordError: there is none, or it is not as one is written.
    """
    path = folder / MANIFEST
    if path.is_symlink() or not path.is_file():
        raise RecordError(f"{folder} holds no {MANIFEST}: it is no folder that 'smd publish' made")
    if path.stat().st_size > _LARGEST:
        raise RecordError(f"{path} is no manifest: it is too large")
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        _check(document)
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{path} is no manifest: {error}") from error
    return Manifest(**{name: document[name] for name in _TEXTS}, files=document["files"])


def _check(document: Any) -> None:
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ValueError(f"its format is not {FORMAT}")
    if odd := [name for name in _TEXTS if not isinstance(document.get(name), str)]:
        raise ValueError(f"{odd[0]} is no text")
    for name in _TEXTS:
        document[name].encode()  # a lone surrogate cannot be written to a page
    files = document.get("files")
    digests = files.values() if isinstance(files, dict) else [None]
    if not all(isinstance(one, str) and re.fullmatch("[0-9a-f]{64}", one) for one in digests):
        raise ValueError("files are no checksums by name")


def walked(folder: Path) -> tuple[list[str], list[str]]:
    """The files below a folder but for its manifest, in order of name, and what is none: links, devices, pipes.

    No link is followed. What git and the hub put beside the files that they carry is left out.
    """
    files: list[str] = []
    odd: list[str] = []
    for place, folders, names in os.walk(folder):
        here = Path(place)
        if here == folder:
            folders[:] = [name for name in folders if name not in _LEFT_BY_TRANSPORT]
            names = [name for name in names if name not in (MANIFEST, *_LEFT_BY_TRANSPORT)]
        for name in (*(one for one in folders if (here / one).is_symlink()), *names):
            path = here / name
            whole = path.is_file() and not path.is_symlink()
            (files if whole else odd).append(path.relative_to(folder).as_posix())
    return sorted(files), sorted(odd)


def leaves(name: str) -> bool:
    """Whether a name leads out of the folder that it is relative to."""
    parts = PurePosixPath(name).parts
    return not parts or name.startswith(("/", "~")) or ".." in parts or "\\" in name or "\0" in name


def mismatches(folder: Path, manifest: Manifest, files: Sequence[str]) -> Iterator[str]:
    """What tells the files of a folder from those of its manifest, a line each.

    Args:
        folder: that holds the files.
        manifest: what is stated.
        files: those that are there, see :func:`walked`.
    """
    for name in sorted(manifest.files.keys() - set(files)):
        if leaves(name):
            yield f"{name}: the manifest names a place outside of the folder"
        else:
            yield f"{name}: missing"
    for name in files:
        if name not in manifest.files:
            yield f"{name}: not in the manifest"
        elif _digest(folder / name) != manifest.files[name]:
            yield f"{name}: changed, its checksum is another than the manifest's"


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
