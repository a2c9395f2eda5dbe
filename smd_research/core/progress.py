"""Progress on stderr: a bar with the time left for a person at a terminal, a line a minute where it goes to a file."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import Progress
from rich.progress import track as rich_track

T = TypeVar("T")

PATIENCE_S = 2.0
"""Seconds that pass before a bar of steps is drawn."""

EVERY_S = 60.0
"""Seconds between two lines of progress in a log."""


def track(items: Sequence[T] | Iterable[T], label: str) -> Iterator[T]:
    """Go through ``items`` and show how far it is; the bar disappears when done."""
    if sys.stderr.isatty():
        yield from rich_track(items, description=f"  {label}", console=Console(stderr=True), transient=True)
        return
    total, beat = len(items) if isinstance(items, Sized) else 0, Beat(label)
    for done, item in enumerate(items):
        beat.tell(done, total)
        yield item


@contextmanager
def steps(label: str) -> Iterator[Callable[[int, int], None]]:
    """Something to tell the number of the step that was done, and of all.

    At a terminal it is a bar, from ``PATIENCE_S`` on, which disappears when all is done.
    """
    if not sys.stderr.isatty():
        yield Beat(label).tell
        return
    began = time.monotonic()
    bar = Progress(console=Console(stderr=True), transient=True)  # its own columns end with the time left
    task = bar.add_task(f"  {label}", total=None)

    def tell(step: int, of: int) -> None:
        if not bar.live.is_started and time.monotonic() - began > PATIENCE_S:
            bar.start()
        bar.update(task, completed=step, total=of)

    try:
        yield tell
    finally:
        bar.stop()


class Beat:
    """A line in a log, a minute after the last one.

    Args:
        label: what goes on.
        clock: seconds that only grow.
    """

    def __init__(self, label: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._label, self._clock = label, clock
        self._began = self._said = clock()

    def tell(self, done: int, of: int) -> None:
        """Say how far it is, and how long the rest takes at this pace, if it is time."""
        now = self._clock()
        if now - self._said < EVERY_S:
            return
        self._said = now
        left = f", {duration((now - self._began) / done * (of - done))} left" if 0 < done < of else ""
        say(f"  {self._label}: {done}{f' of {of}' if of else ''}{left}")


def duration(seconds: float) -> str:
    """Seconds as a person says them: ``40 s``, ``3 min``, ``2 h 5 min``."""
    if seconds < 60:
        return f"{max(round(seconds), 1)} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def say(line: str) -> None:
    """One line of progress."""
    print(line, file=sys.stderr, flush=True)
