"""Files that appear whole or not at all: written beside their place, then renamed."""

import os
import secrets
from pathlib import Path

from smd_research.core.errors import RecordError


def write_whole(path: Path, content: bytes) -> Path:
    """Put a file in its place at once: a reader sees what stood there before, or all of the new.

    Args:
        path: of the file; folders above it are made. A link stays one; a device or a pipe is written to as it is.
        content: of the file.

    Returns:
        The path.

    Raises:
        RecordError: nothing can be written there; what stood there is as it was.
    """
    place = Path(os.path.realpath(path))
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.exists() and not place.is_file():
            place.write_bytes(content)
        else:
            _replace(place, content)
    except OSError as error:
        raise RecordError(
            f"cannot write {path}: {error.strerror or error}; free space or choose another place"
        ) from error
    return path


def _replace(place: Path, content: bytes) -> None:
    aside = place.with_name(f".{place.name}.{secrets.token_hex(4)}")
    try:
        aside.write_bytes(content)
        aside.replace(place)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
