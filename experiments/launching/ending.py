"""How a process that has a cell leaves it when it is told to: its lease given back, for others to take at once."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from smd_research.core.errors import MachineError


class LateError(MachineError):
    """The time of a job is over."""


@contextmanager
def ends_properly(alarm_s: float | None = None, limit: str = "") -> Iterator[None]:
    """Turn what a scheduler sends into ways out that Python knows; outside the main thread nothing is changed.

    Args:
        alarm_s: seconds after which whatever runs is broken off; None for never.
        limit: words that name that limit.

    Raises:
        SystemExit: SIGTERM or SIGUSR2 came.
        LateError: the time is over; nothing is recorded.
    """

    def leave(number: int, frame: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for one in handlers:  # schedulers send several, and the next would break off the giving back
            signal.signal(one, signal.SIG_IGN)
        raise SystemExit(128 + number)

    def late(number: int, frame: object) -> None:
        raise LateError(f"broken off near its time limit, {limit}")

    handlers = {signal.SIGTERM: leave, signal.SIGUSR2: leave, signal.SIGALRM: late}
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    signal.setitimer(signal.ITIMER_REAL, alarm_s or 0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)
