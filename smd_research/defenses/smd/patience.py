"""How long a step of the batch waits for vaults: never longer for one than the others can bear.

A step asks all vaults at once and goes on with those that have answered. A vault that others would wait for longer than
a grace is left out of the step: its request keeps what was answered so far, waits beside the batch, and comes back with
the answer. A vault that is slow by its nature so advances at its own pace and costs nobody time; one that wastes a
grace, on purpose or not, is granted none for twenty times as long.
"""

import select
import time
from collections.abc import Callable, Sequence
from functools import partial

from smd_research.boundary.messages import Message
from smd_research.boundary.vigil import Vigil
from smd_research.core.clock import MACHINE, Clock
from smd_research.core.errors import PeerLostError
from smd_research.defenses.smd.requests import Question, Request, guarded

SHORTEST_S, LONGEST_S = 0.01, 0.1
"""Bounds of the grace, which otherwise is twice the time of a step that waited for nobody."""
PROBATION = 20
"""A request that wasted a grace has none for so many times as long."""


class NobodyLeftError(Exception):
    """Everybody in a step has failed or is waited for beside it: there is nobody to finish it for."""


class Patience:
    """Of a service with one user: waits for every answer as long as the channel does."""

    def __init__(self, clock: Clock = MACHINE) -> None:
        self._clock = clock

    def begin(self) -> None:
        """A step begins."""

    def end(self, late: bool) -> None:
        """It has ended, with or without requests that were left out."""

    def ask(self, request: Request, about: int, message: Message) -> None:
        """Send a question, unless it was sent in an earlier attempt at this token."""
        if not request.present or about in request.answers or request.asked:
            return
        since = self._clock.now()
        reply = guarded(request, partial(request.channel.post, message))
        if reply:
            request.asked = Question(about, reply, since)

    def collect(
        self, requests: Sequence[Request], about: int, read: Callable[[Request, Message], Message]
    ) -> list[tuple[Request, Message]]:
        """The answers to a question, of those who still take part in the step and were asked.

        Args:
            requests: all of the step.
            about: what they were asked.
            read: holds an answer against its question; raises ProtocolError when it does not fit.

        Raises:
            NobodyLeftError: when the step has nobody left.
        """
        waiting = [request for request in requests if _awaits(request, about)]
        if waiting:
            self._wait(waiting, requests)
        answers = []
        for request in requests:
            if _awaits(request, about):
                assert request.asked
                answer = guarded(request, partial(_taken, request, request.asked, read))
                if answer:
                    request.answers[about] = answer
                request.asked = None
            if request.present and about in request.answers:
                answers.append((request, request.answers[about]))
        if not any(request.present for request in requests):
            raise NobodyLeftError
        return answers

    def _wait(self, waiting: Sequence[Request], step: Sequence[Request]) -> None:
        """Wait before answers are taken; mark as late whose answer is not waited for.

        Args:
            waiting: who has an answer to come.
            step: everybody in the step.
        """


def _awaits(request: Request, about: int) -> bool:
    return request.present and request.asked is not None and request.asked.about == about


def _taken(request: Request, question: Question, read: Callable[[Request, Message], Message]) -> Message:
    return read(request, question.reply())


class Grace(Patience):
    """Of a service with many users.

    Args:
        watched: everything that the service looks after, the channels of its users included: while nobody else waits,
            whatever happens there ends the waiting.
        timeout_s: how long a vault may take over an answer at all.
        spin_s: how long to stay awake before sleeping.
        clock: tells the time.
    """

    def __init__(self, watched: select.poll, *, timeout_s: float, spin_s: float, clock: Clock = MACHINE) -> None:
        super().__init__(clock)
        self._watched = watched
        self._timeout_s = timeout_s
        self._vigil = Vigil(spin_s)
        self._typical_s = SHORTEST_S
        self._began = 0.0

    def begin(self) -> None:
        self._began = self._clock.now()

    def end(self, late: bool) -> None:
        if not late:
            self._typical_s += 0.2 * (self._clock.now() - self._began - self._typical_s)

    @property
    def _grace_s(self) -> float:
        return min(max(2 * self._typical_s, SHORTEST_S), LONGEST_S)

    def overdue(self, request: Request) -> bool:
        """Whether a vault has taken too long over an answer."""
        return request.asked is not None and self._clock.now() >= request.asked.since + self._timeout_s

    def _wait(self, waiting: Sequence[Request], step: Sequence[Request]) -> None:
        """Wait for all of them while nobody else wants anything, else for a grace."""
        missing = [request for request in waiting if not self._answered(request)]
        asleep = self._vigil.begin()
        since, elsewhere = None, False
        while missing:
            now = self._clock.now()
            pressed = sum(request.present for request in step) > len(missing)
            if pressed or elsewhere:
                since = now if since is None else since
                self._leave_out(missing, since, now, pressed)
            for request in missing:
                if self.overdue(request):
                    request.failure = PeerLostError(f"the vault did not answer within {self._timeout_s:g} s")
            missing = [request for request in missing if request.present]
            if missing and time.perf_counter() >= asleep:
                self._vigil.in_vain()
                elsewhere |= self._sleep(missing, since)
            missing = [request for request in missing if not self._answered(request)]

    def _answered(self, request: Request) -> bool:
        """Whether there is nothing to wait for: the answer is here, or the vault has gone."""
        return bool(guarded(request, request.channel.arrived)) or request.failure is not None

    def _leave_out(self, missing: Sequence[Request], since: float, now: float, pressed: bool) -> None:
        """Mark as late who has used up the grace; where others in the step are ``pressed``, who has none as well."""
        for request in missing:
            if now >= since + self._grace_s:
                request.late = True
                if pressed:
                    request.trusted_at = now + PROBATION * self._grace_s
            elif pressed and now < request.trusted_at:
                request.late = True

    def _sleep(self, missing: Sequence[Request], since: float | None) -> bool:
        """Sleep until something happens or time is over; whether somebody beside the step wants something."""
        ends = [request.asked.since + self._timeout_s for request in missing if request.asked]
        own = {request.channel.fileno() for request in missing}
        if since is None:
            events = self._watched.poll(1000 * self._clock.until(min(ends)))
            return any(descriptor not in own for descriptor, _ in events)
        poll = select.poll()
        for descriptor in own:
            poll.register(descriptor, select.POLLIN)
        poll.poll(1000 * self._clock.until(min(*ends, since + self._grace_s)))
        return False
