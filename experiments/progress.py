"""Progress on stderr: a bar for a person at a terminal, nothing where the output goes to a file."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import Progress
from rich.progress import track as rich_track

T = TypeVar("T")


def track(items: Sequence[T] | Iterable[T], label: str) -> Iterator[T]:
    """Go through ``items`` and show how far it is; the bar disappears when done."""
    if not sys.stderr.isatty():
        yield from items
        return
    yield from rich_track(items, description=f"  {label}", console=Console(stderr=True), transient=True)


@contextmanager
def steps(label: str) -> Iterator[Callable[[int, int], None]]:
    """Something to tell the number of the step that was done, and of all; the bar disappears when done."""
    if not sys.stderr.isatty():
        yield _silent
        return
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(f"  {label}", total=None)
        yield lambda step, of: bar.update(task, completed=step, total=of)


def _silent(step: int, of: int) -> None:
    """Where nobody looks."""


def say(line: str) -> None:
    """One line of progress."""
    print(line, file=sys.stderr, flush=True)
