"""Folders in the temporary folder that no way out of a program leaves behind for good.

One that is left properly removes its folder. One that is killed cannot: its folder stays until the next is made, which
removes those that nobody holds any more.
"""

import contextlib
import fcntl
import os
import re
import shutil
import tempfile
import time
import weakref
from pathlib import Path

_PREFIX = "smd-scratch-"
_NAME = re.compile(rf"{_PREFIX}[a-z0-9_]{{8}}")
_YOUNG_S = 60.0


class Scratch:
    """A folder of this process alone, until it is removed, no longer referred to, or the process ends.

    Attributes:
        path: the folder.
    """

    def __init__(self) -> None:
        _remove_left()
        self.path = Path(tempfile.mkdtemp(prefix=_PREFIX))
        handle = os.open(self.path, os.O_RDONLY)
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self.remove = weakref.finalize(self, _remove, self.path, handle, os.getpid())


def _remove(folder: Path, handle: int, owner: int) -> None:
    if os.getpid() == owner:  # a fork that ends takes nothing with it
        shutil.rmtree(folder, ignore_errors=True)
    os.close(handle)


def _remove_left() -> None:
    """Remove the folders of processes that were killed: those whose lock nobody holds."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            # A young one may not be locked yet.
            old = time.time() - folder.lstat().st_mtime > _YOUNG_S
            if old and _NAME.fullmatch(folder.name) and folder.lstat().st_uid == os.getuid():
                _remove_unlocked(folder)


def _remove_unlocked(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(handle)
