"""How long to stay awake for a message before sleeping."""

import time

RESTS = 64
"""How many waits go without staying awake after one that did in vain."""


class Vigil:
    """Stays awake for messages that come soon, as the queries of a small model's layers do, and the answers to them.

    That saves the scheduler's wake-up where both parties have a core, and more: a sender often gives its own core to
    whom it wakes, and the two then take turns. Where they have no core each, whoever stays awake keeps the other from
    answering; so after a vigil in vain the next waits sleep at once.

    Args:
        spin_s: how long to stay awake.
    """

    def __init__(self, spin_s: float) -> None:
        self._spin_s = spin_s
        self._rests = 0
        self._awake = False

    def begin(self) -> float:
        """Until when to stay awake, on ``time.perf_counter``."""
        self._awake = not self._rests
        if self._rests:
            self._rests -= 1
            return 0.0
        return time.perf_counter() + self._spin_s

    def in_vain(self) -> None:
        """The message did not come while awake."""
        if self._awake:
            self._rests, self._awake = RESTS, False
