"""The seven stages of a decode step, as arXiv 2409.19134 (Figure 7) breaks it down."""

import time
from enum import StrEnum


class Stage(StrEnum):
    """A stage of a layer; the last one also takes the norms, the output projection and the head."""

    Q_PROJ = "Q proj"
    SEND = "Send Q"
    KV_PROJ = "KV proj"
    OUT_ATTENTION = "Out attn"
    RECEIVE = "Recv pvt"
    MERGE = "Merge"
    MLP = "MLP"


class StageClock:
    """Adds up the seconds that a decode service spends in each stage.

    Attributes:
        seconds: by stage.
    """

    def __init__(self) -> None:
        self.start()

    def start(self) -> None:
        """Forget what was measured."""
        self.seconds = dict.fromkeys(Stage, 0.0)
        self._last = time.perf_counter()

    def resume(self) -> None:
        """Leave out the time since the last mark."""
        self._last = time.perf_counter()

    def mark(self, stage: Stage) -> None:
        """The time since the last mark went into ``stage``."""
        now = time.perf_counter()
        self.seconds[stage] += now - self._last
        self._last = now
