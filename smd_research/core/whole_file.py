"""Files that appear whole or not at all: written beside their place, then renamed."""

import secrets
from pathlib import Path

from smd_research.core.errors import RecordError


def write_whole(path: Path, content: bytes) -> Path:
    """Put a file in its place at once: a reader sees what stood there before, or all of the new.

    Args:
        path: of the file; folders above it are made.
        content: of the file.

    Returns:
        The path.

    Raises:
        RecordError: nothing can be written there; what stood there is as it was.
    """
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            aside.write_bytes(content)
            aside.replace(path)
        except BaseException:
            aside.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise RecordError(
            f"cannot write {path}: {error.strerror or error}; free space or choose another place"
        ) from error
    return path
