"""A training inside another computation: Lightning keeps its remarks to itself, shows how far it is, and ends alone."""

import logging
import signal
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytorch_lightning as lightning

from smd_research.core import progress


@contextmanager
def quietly() -> Iterator[None]:
    """Lightning announces hardware and gives advice; inside another computation nobody asked for it.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed. Lightning ends the whole process then, with status 1 and deaf to a second
            one; here the computation around it hears of it, and says what is kept.
    """
    log = logging.getLogger("pytorch_lightning")
    before, handler = log.level, signal.getsignal(signal.SIGINT)
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except SystemExit as leaving:
        if not isinstance(leaving.__context__, KeyboardInterrupt):
            raise
        signal.signal(signal.SIGINT, handler)
        raise KeyboardInterrupt from None
    finally:
        log.setLevel(before)


class StepBar(lightning.Callback):  # type: ignore[misc]  # Lightning is untyped here
    """Steps done, where people look for progress, see :func:`smd_research.core.progress.steps`; gone when it ends."""

    def __init__(self, label: str, steps: int) -> None:
        self._steps, self._shown = steps, ExitStack()
        self._tell = self._shown.enter_context(progress.steps(label))

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        """Move on."""
        self._tell(trainer.global_step, self._steps)

    def teardown(self, *_: Any, **__: Any) -> None:
        """Take it away, also after an error."""
        self._shown.close()
