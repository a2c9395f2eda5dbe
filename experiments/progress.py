"""Progress on stderr: a bar for a person at a terminal, nothing where the output goes to a file."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from rich.console import Console
from rich.progress import track as rich_track

T = TypeVar("T")


def track(items: Sequence[T] | Iterable[T], label: str) -> Iterator[T]:
    """Go through ``items`` and show how far it is; the bar disappears when done."""
    if not sys.stderr.isatty():
        yield from items
        return
    yield from rich_track(items, description=f"  {label}", console=Console(stderr=True), transient=True)


def say(line: str) -> None:
    """One line of progress."""
    print(line, file=sys.stderr, flush=True)
