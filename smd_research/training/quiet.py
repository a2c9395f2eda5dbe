"""A short training inside another computation: Lightning keeps its remarks to itself, a bar shows to who waits."""

import logging
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as lightning
from rich.console import Console
from rich.progress import Progress, TaskID

PATIENCE_S = 2.0
"""Seconds that pass before a bar is drawn."""


@contextmanager
def quietly() -> Iterator[None]:
    """Lightning announces hardware and gives advice; inside another computation nobody asked for it."""
    log = logging.getLogger("pytorch_lightning")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(before)


class StepBar(lightning.Callback):  # type: ignore[misc]  # Lightning is untyped here
    """Steps done, on stderr at a terminal, once the training takes longer than ``PATIENCE_S``; gone when it ends."""

    def __init__(self, label: str, steps: int) -> None:
        self._label, self._steps = label, steps
        self._began = time.monotonic()
        self._bar: Progress | None = None
        self._task = TaskID(0)

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        """Move on."""
        if self._bar is None and time.monotonic() - self._began > PATIENCE_S and sys.stderr.isatty():
            self._bar = Progress(console=Console(stderr=True), transient=True)
            self._task = self._bar.add_task(f"  {self._label}", total=self._steps)
            self._bar.start()
        if self._bar is not None:
            self._bar.update(self._task, completed=trainer.global_step)

    def teardown(self, *_: Any, **__: Any) -> None:
        """Take the bar away, also after an error."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
