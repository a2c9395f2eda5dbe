"""Jobs of an engine, followed until each has ended; one that is lost is submitted again."""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from experiments.launching.job import Job
from experiments.launching.wants import Wants
from smd_research.core.errors import LabError
from smd_research.core.progress import say


@dataclass(frozen=True)
class Ended:
    """A job that is over.

    Attributes:
        wrong: what ends the whole command, or empty.
        lost: why it came to no end of its own (killed, preempted, its host gone), or empty.
    """

    wrong: str = ""
    lost: str = ""


class Engine(Protocol):
    """Takes jobs, and knows what became of them."""

    def submit(self, jobs: Sequence[Job]) -> Sequence[str]:
        """Hand over jobs; the ticket of each."""

    def ended(self, tickets: Collection[str]) -> Mapping[str, Ended]:
        """Those of some jobs that are over."""

    def cancel(self, tickets: Collection[str]) -> None:
        """End jobs that nobody waits for any more."""


def follow(engine: Engine, jobs: Sequence[Job], wants: Wants, tell: Callable[[], object]) -> int:
    """Submit jobs and wait until they are over; whatever ends this ends them.

    Args:
        engine: takes the jobs.
        jobs: what is run.
        wants: how often it is looked at them, and how often a lost one is submitted again.
        tell: called after each look.

    Returns:
        How many jobs were lost for good.

    Raises:
        LabError: a job met what ends the whole command.
    """
    waiting = {ticket: (job, wants.retries) for ticket, job in zip(engine.submit(jobs), jobs, strict=True)}
    given_up = 0
    try:
        while waiting:
            time.sleep(wants.poll_s)
            ended = engine.ended(list(waiting))
            tell()
            for ticket, one in ended.items():
                job, left = waiting.pop(ticket)
                if one.wrong:
                    raise LabError(one.wrong)
                if one.lost and left:
                    say(f"job {ticket} was lost, and is submitted again: {one.lost}")
                    (again,) = engine.submit([job])
                    waiting[again] = (job, left - 1)
                elif one.lost:
                    say(f"job {ticket} was lost once more, and is given up: {one.lost}")
                    given_up += 1
    finally:
        if waiting:
            engine.cancel(list(waiting))
    return given_up
