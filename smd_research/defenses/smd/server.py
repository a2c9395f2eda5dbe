"""The provider's process of a service for many users: many connections, one batch.

Nothing here waits for one user: what users send is taken as it arrives and what they do not take is kept for them, each
frame has one deadline, and whatever a user brings about ends that user's request and connection, and nothing else.
"""

import contextlib
import errno
import select
import signal
import socket
import sys
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection

import torch

from smd_research.boundary.addresses import accept
from smd_research.boundary.messages import Done, OutputRequest, StartDecode
from smd_research.boundary.stream import StreamChannel
from smd_research.boundary.wire import FrameKind
from smd_research.core.clock import MACHINE, Clock
from smd_research.core.errors import LabError, PeerLostError, ProtocolError
from smd_research.core.quoting import quoted
from smd_research.defenses.smd.batch import DecodeBatch
from smd_research.defenses.smd.patience import Grace
from smd_research.defenses.smd.requests import Request, ServiceOptions, unforeseen
from smd_research.defenses.smd.stages import StageClock
from smd_research.models.bundle import Bundle
from smd_research.models.shared import SharedWeights

IDLE_S = 3600.0
"""How long a user may ask for nothing."""
MOST_USERS = 256
"""Connections at once; another one takes the place of the stranger who has been silent for longest."""
USER_STREAMS = 16
"""Streams of one user's request."""
EXPIRY_S = 0.25
"""How often deadlines are looked at."""
SHARE = 0.5
"""Of the time of a step, how much users who are not in the batch may take between two steps."""


@dataclass(eq=False)
class _Seat:
    """A user's connection.

    Attributes:
        heard: when it last asked for something, or came.
        looked_after: when something of it was last taken.
        known: whether it has been served before.
        request: which it has in the batch, or beside it.
        sequence: number of that request's frame.
    """

    channel: StreamChannel
    heard: float
    looked_after: float
    known: bool = False
    request: Request | None = None
    sequence: int = 0


class Server:
    """Serves whoever connects; requests join the batch between two steps and leave it when they are done.

    Args:
        bundle: the model.
        options: public configuration.
        listener: where users connect.
        control: commands from whoever started the process; outside the boundary.
        timeout_s: how long a vault may take over an answer, and a user over a frame.
        idle_s: how long a user may ask for nothing.
        spin_s: how long a receive stays awake before it sleeps.
        stages: adds up the seconds of each stage of a decode step, when given.
        clock: tells when time is over.
    """

    def __init__(
        self,
        bundle: Bundle,
        options: ServiceOptions,
        listener: socket.socket,
        control: Connection,
        *,
        timeout_s: float,
        idle_s: float = IDLE_S,
        spin_s: float = 0.0,
        stages: StageClock | None = None,
        clock: Clock = MACHINE,
    ) -> None:
        self._poll = select.poll()
        self._grace = Grace(self._poll, timeout_s=timeout_s, spin_s=spin_s, clock=clock)
        self._batch = DecodeBatch(bundle, options, stages, patience=self._grace, most_streams=USER_STREAMS)
        self._largest = _largest(bundle)
        self._listener = listener
        self._control = control
        self._timeout_s = timeout_s
        self._idle_s = idle_s
        self._spin_s = spin_s
        self._stages = stages
        self._clock = clock
        self._seats: dict[int, _Seat] = {}
        self._serving: dict[Request, _Seat] = {}
        self._expired = clock.now()
        self._step_s = 0.0
        self._owed_s = 0.0
        for descriptor in (listener.fileno(), control.fileno()):
            self._poll.register(descriptor, select.POLLIN)

    def run(self) -> None:
        """Serve until whoever started the process closes the control connection."""
        while self._attend():
            if self._batch.requests:
                self._step()
            else:
                self._owed_s = 0.0
            for request in self._batch.settle():
                self._conclude(request)

    def _step(self) -> None:
        if self._stages:
            self._stages.resume()
        began = time.perf_counter()
        self._batch.step()
        self._step_s = time.perf_counter() - began
        self._owed_s = max(0.0, self._owed_s - self._step_s)

    # -- between two steps -------------------------------------------------------------------------------------------

    def _attend(self) -> bool:
        """Look after whoever wants something; False when whoever started the process has left."""
        idle = [seat for seat in self._seats.values() if seat.request is None and not seat.channel.unsent]
        buffered = [seat for seat in idle if seat.channel.buffered]
        busy = bool(self._batch.requests or buffered)
        wait_s = 0.0 if busy else self._clock.until(self._clock.now() + EXPIRY_S) if self._seats else None
        ready = {descriptor for descriptor, _ in self._poll.poll(None if wait_s is None else 1000 * wait_s)}
        if self._control.fileno() in ready:
            try:
                command = self._control.recv()
            except (EOFError, ConnectionError):
                return False
            self._control.send(self._command(*command))
        if self._listener.fileno() in ready:
            self._welcome()
        wanting = {seat for descriptor, seat in self._seats.items() if descriptor in ready}
        self._look_after(sorted(wanting.union(buffered), key=lambda seat: seat.looked_after))
        self._expire()
        return True

    def _command(self, name: str, value: int = 0) -> object:
        match name:
            case "threads":
                torch.set_num_threads(value)
                return None
            case "stages":
                assert self._stages
                seconds = self._stages.seconds
                self._stages.start()
                return seconds
            case "kv":
                return self._batch.kv_bytes
            case _:
                return None

    def _welcome(self) -> None:
        """Take in whoever waits to be connected."""
        for _ in range(MOST_USERS):
            try:
                sock, _ = accept(self._listener, 0)
            except PeerLostError:  # nobody more
                return
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE):  # no descriptor left
                    self._make_room()
                return
            channel = StreamChannel(
                sock,
                timeout_s=self._timeout_s,
                spin_s=self._spin_s,
                max_frame=self._largest,
                queues=True,
                clock=self._clock,
            )
            if len(self._seats) >= MOST_USERS and not self._make_room():
                channel.close()
                continue
            now = self._clock.now()
            self._seats[channel.fileno()] = _Seat(channel, now, now)
            self._poll.register(channel.fileno(), select.POLLIN)

    def _make_room(self) -> bool:
        """Send the stranger away who has been silent for longest, or the user; False when all are being served."""
        idle = [seat for seat in self._seats.values() if seat.request is None]
        if idle:
            self._drop(min(idle, key=lambda seat: (seat.known, seat.heard)))
        return bool(idle)

    def _look_after(self, seats: list[_Seat]) -> None:
        """Take what users sent, as long as those in the batch can bear it; the rest is taken after the next step."""
        until = time.perf_counter() + SHARE * self._step_s
        for seat in seats:
            try:
                self._take(seat)
            except Exception:  # whatever a user brings about ends that user's connection, and nothing else
                self._drop(seat)
            if self._batch.requests and time.perf_counter() > until:
                return

    def _take(self, seat: _Seat) -> None:
        """Go on with one user.

        Raises:
            PeerLostError: when the user has gone.
            ProtocolError: when what was sent is no frame.
        """
        seat.looked_after = self._clock.now()
        channel, request = seat.channel, seat.request
        channel.flush()
        if request is None:
            # who does not take the answers is not asked for more; and admissions pay back what they took of others
            owing = self._owed_s > 0 and self._batch.requests
            if not channel.unsent and not owing and channel.arrived():
                self._serve(seat)
        elif request.late and request.failure is None:
            try:
                if channel.arrived():
                    self._batch.rejoin(request)
            except LabError as error:
                request.failure = error
        self._watch(seat)

    def _serve(self, seat: _Seat) -> None:
        """Take a message of a user who has no request."""
        channel = seat.channel
        header, message = channel.receive()
        seat.heard = self._clock.now()
        if header.kind is not FrameKind.REQUEST:
            raise ProtocolError(f"a user sent {type(message).__name__} where a request was expected")
        began = time.perf_counter()
        try:
            if isinstance(message, OutputRequest):
                channel.reply(self._batch.outputs(message, channel), header.sequence)
            elif isinstance(message, StartDecode):
                seat.request = self._batch.admit(message, channel)
                seat.sequence = header.sequence
                self._serving[seat.request] = seat
            else:
                raise ProtocolError(f"the decode service does not serve {type(message).__name__}")
        except PeerLostError:
            raise
        except LabError as error:
            channel.refuse(str(error), header.sequence)
        except Exception as error:
            channel.refuse(str(unforeseen(error)), header.sequence)
        if self._batch.requests:
            self._owed_s += time.perf_counter() - began

    def _watch(self, seat: _Seat) -> None:
        """Wait for what may come next: the user's words, or room for ours."""
        channel = seat.channel
        if self._seats.get(channel.fileno()) is seat:
            reads = select.POLLIN if seat.request or not channel.unsent else 0
            self._poll.modify(channel.fileno(), reads | (select.POLLOUT if channel.unsent else 0))

    def _expire(self) -> None:
        """End what has taken too long."""
        now = self._clock.now()
        if now < self._expired + EXPIRY_S:
            return
        self._expired = now
        for seat in list(self._seats.values()):
            if seat.request is None:
                if seat.channel.overdue or now >= seat.heard + self._idle_s:
                    self._drop(seat)
            elif seat.channel.overdue or (seat.request.late and self._grace.overdue(seat.request)):
                seat.request.failure = PeerLostError(f"the vault did not answer within {self._timeout_s:g} s")

    def _conclude(self, request: Request) -> None:
        """Answer a request that has left the batch; a channel that failed is out of step and is closed."""
        seat = self._serving.pop(request)
        seat.request = None
        try:
            if request.failure is None:
                seat.channel.reply(Done(), seat.sequence)
                seat.known, seat.heard = True, self._clock.now()
                self._watch(seat)
                return
            seat.channel.refuse(f"the request failed: {quoted(request.failure)}", seat.sequence)
        except LabError:
            pass
        self._drop(seat)

    def _drop(self, seat: _Seat) -> None:
        """Close a user's connection; what it has in the batch fails."""
        if seat.request is not None:
            seat.request.failure = seat.request.failure or PeerLostError("the user has left")
            return
        self._poll.unregister(seat.channel.fileno())
        del self._seats[seat.channel.fileno()]
        self._batch.forget(seat.channel)
        with contextlib.suppress(OSError):
            seat.channel.close()


def _largest(bundle: Bundle) -> int:
    """Bytes of the largest message that a user has reason to send: a prompt, or the states of all streams."""
    shape = bundle.geometry
    states = USER_STREAMS * max(shape.width, shape.heads * (shape.head_dim + 2))
    return 4 * (states + shape.context) + 2**12


def serve_users(
    weights: SharedWeights,
    options: ServiceOptions,
    listener: socket.socket,
    threads: int,
    timeout_s: float,
    idle_s: float,
    spin_s: float,
    clocked: bool,
    control: Connection,
) -> None:
    """Main of the provider's process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(threads)
    server = Server(
        weights.attach(),
        options,
        listener,
        control,
        timeout_s=timeout_s,
        idle_s=idle_s,
        spin_s=spin_s,
        stages=StageClock() if clocked else None,
    )
    control.send(None)
    try:
        server.run()
    except Exception as error:
        sys.exit(f"the provider of the service ends: {type(error).__name__}: {quoted(error)}")
