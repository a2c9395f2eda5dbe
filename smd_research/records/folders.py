"""Folders that appear whole or not at all.

A folder is written under a temporary name beside its place, flushed to disk, and renamed. A folder cannot be renamed
onto a full one, so a replaced folder is first renamed away. Neither step needs a lock: whoever finds the place taken
again simply repeats both, and the last writer wins. A process killed between the two leaves a complete retired folder,
which :func:`clear_leftovers` puts back.
"""

import contextlib
import errno
import os
import secrets
import shutil
import time
from collections.abc import Mapping
from pathlib import Path

import psutil

from smd_research.core.errors import RecordError
from smd_research.records.machine import machine

_TEMPORARY, _RETIRED = ".tmp~", ".old~"
_STALE_AFTER_S = 24 * 3600.0


def replace_folder(target: Path, files: Mapping[str, bytes]) -> None:
    """Put a folder with exactly these files at ``target``, replacing what stands there in one step.

    A name may lead into folders of its own, ``data/board.js``.

    Raises:
        OSError: when the disk is full or read-only; the target is then as it was.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = _beside(target, _TEMPORARY)
    try:
        temporary.mkdir()
        for name, content in files.items():
            (temporary / name).parent.mkdir(parents=True, exist_ok=True)
            with (temporary / name).open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        _sync_folder(temporary)
        _move_into_place(temporary, target)
        _sync_folder(target.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def free_for(out: Path, mark: str, kind: str) -> None:
    """Refuse a place where something else stands than what may be replaced.

    Args:
        out: the place.
        mark: the file in it by which a folder of the kind is known.
        kind: what a person calls such a folder.

    Raises:
        RecordError: ``out`` is a file, or a folder that is neither empty nor of the kind.
    """
    if out.exists() and not out.is_dir():
        raise RecordError(f"{out} is a file: choose a folder with out=")
    if out.is_dir() and any(out.iterdir()) and not (out / mark).is_file():
        raise RecordError(f"{out} holds other things than {kind}: choose an empty or new folder with out=")


def prove_room(parent: Path, nbytes: int) -> None:
    """Show that so much can be written to a folder, by writing it: quotas show nowhere else.

    Raises:
        OSError: when the disk is full or read-only; nothing is left there.
    """
    temporary = _beside(parent / "room", _TEMPORARY)
    try:
        temporary.mkdir(parents=True)
        with (temporary / "room").open("xb") as file:
            file.write(bytes(nbytes))
            file.flush()
            os.fsync(file.fileno())
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def clear_leftovers(parent: Path) -> None:
    """Remove leftovers of killed writers from a folder, and put back what they had only moved away.

    Only leftovers of processes of this machine that no longer live, or older than a day, are touched.
    """
    for leftover in sorted(parent.glob(f"{_TEMPORARY}*")) + sorted(parent.glob(f"{_RETIRED}*")):
        if not _is_stale(leftover):
            continue
        target = parent / leftover.name.split("~")[-1]
        if leftover.name.startswith(_RETIRED) and not target.exists():
            with contextlib.suppress(OSError):
                leftover.rename(target)
                continue
        shutil.rmtree(leftover, ignore_errors=True)


def _move_into_place(temporary: Path, target: Path) -> None:
    retired: list[Path] = []
    try:
        while not _renamed(temporary, target):
            aside = _beside(target, _RETIRED)
            # Another writer may have moved it away first: then the place is free, or will be taken again.
            with contextlib.suppress(FileNotFoundError):
                target.rename(aside)
                retired.append(aside)
    except BaseException:
        if retired and not target.exists():
            retired.pop().rename(target)
        raise
    finally:
        for aside in retired:
            shutil.rmtree(aside, ignore_errors=True)


def _renamed(source: Path, target: Path) -> bool:
    """Rename a folder; False when its new place is taken by a full one."""
    try:
        source.rename(target)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return False
        raise
    return True


def _beside(target: Path, prefix: str) -> Path:
    """A unique hidden name beside the target that says which process owns it: prefix, machine, process, nonce, name."""
    return target.with_name(f"{prefix}{machine()}~{os.getpid()}~{secrets.token_hex(4)}~{target.name}")


def _is_stale(leftover: Path) -> bool:
    try:
        age = time.time() - leftover.stat().st_mtime
    except OSError:
        return False
    words = leftover.name.split("~")
    mine = len(words) == 5 and words[1] == machine() and words[2].isdigit()
    return age > _STALE_AFTER_S or (mine and not psutil.pid_exists(int(words[2])))


def _sync_folder(folder: Path) -> None:
    """Flush a folder's entries; file systems that cannot are none the worse."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
