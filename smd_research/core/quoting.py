"""Text that came from outside, as it may be shown: printable ASCII on one line, and cut; and text without paths."""

import re
from collections.abc import Mapping
from typing import Any

MAX_SHOWN = 200

_PATH = re.compile(r"(?<![\w.~/-])~?(?:/[^\s'\",;()\[\]{}]*)+")


def quoted(text: object, limit: int = MAX_SHOWN) -> str:
    """``text`` with everything but printable ASCII escaped, at most ``limit`` characters and an ellipsis.

    What is quoted already stays as it is.
    """
    given = str(text)
    shown = "".join(c if " " <= c <= "~" else c.encode("unicode_escape").decode() for c in given[:limit])
    return shown if len(shown) <= limit and len(given) <= limit else f"{shown[:limit]}..."


def without_paths(value: Any) -> Any:
    """A plain value in whose texts only the last word of a path is left."""
    if isinstance(value, str):
        return _PATH.sub(lambda found: found[0].rstrip("/").rpartition("/")[2], value)
    if isinstance(value, Mapping):
        return {key: without_paths(item) for key, item in value.items()}
    return [without_paths(item) for item in value] if isinstance(value, list) else value
