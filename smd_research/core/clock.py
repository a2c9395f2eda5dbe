"""Deadlines on a clock that tests may replace by one of their own."""

import time


class Clock:
    """The machine's clock: what time it is, and how long to wait for a moment."""

    def now(self) -> float:
        """Seconds since some moment in the past; never goes back."""
        return time.monotonic()

    def until(self, deadline: float) -> float:
        """How many seconds to wait for ``deadline``; 0 when it has passed."""
        return max(0.0, deadline - self.now())


MACHINE = Clock()
