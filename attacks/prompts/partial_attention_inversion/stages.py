"""Which stage named how many tokens, and how long it took."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

NAMES = ("row_space", "deduction", "peeling", "pursuit", "left_to_right")


@dataclass
class Stages:
    """The stages of one prompt.

    Attributes:
        tokens: positions that each stage named first.
        seconds: that each stage took.
    """

    tokens: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add what runs inside to a stage's seconds."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start

    def named(self, stage: str, tokens: int) -> None:
        """Note that a stage named further positions."""
        self.tokens[stage] = self.tokens.get(stage, 0) + tokens

    @property
    def facts(self) -> dict[str, float]:
        """All of it, by metric."""
        counts = {f"{stage}_tokens": float(self.tokens.get(stage, 0)) for stage in NAMES}
        return counts | {f"{stage}_s": self.seconds.get(stage, 0.0) for stage in NAMES}
