"""A channel over a stream socket: the same code for a socket pair between processes and for TCP."""

import select
import socket
import time
from collections import deque
from collections.abc import Callable

from smd_research.boundary import wire
from smd_research.boundary.channel import Channel, Meter, Party
from smd_research.boundary.ledger import Direction
from smd_research.boundary.messages import Message
from smd_research.boundary.vigil import Vigil
from smd_research.core.clock import MACHINE, Clock
from smd_research.core.errors import LabError, PeerLostError, ProtocolError
from smd_research.core.quoting import quoted

READ_BYTES = 1 << 16
SPIN_S = 1e-3
"""Longer than a layer of a small model takes between two queries: whoever sleeps then is woken on the waker's core."""
SLOWEST = 2**20
"""Bytes a second at which a message must move at least, beside the time that any message may take."""
DEEPEST = 16
"""Requests within requests that a peer may make."""


class StreamChannel(Channel):
    """Frames over a connected stream socket.

    A receive first polls the socket for a short while (``Vigil``) before it sleeps.

    One deadline holds for a whole frame, whichever way it goes: a peer who sends or takes a byte now and then is as
    lost as one who is silent.

    Args:
        sock: a connected stream socket; the channel owns it.
        meter: counts frames; given at the trusted end only.
        timeout_s: how long the peer may stay silent inside a request, and take over a frame (a large one in addition
            a second for each ``SLOWEST`` bytes).
        spin_s: how long to poll before sleeping, where that is not in vain.
        max_frame: largest body accepted, bytes.
        queues: keep what the peer does not take at once and send it with ``flush``, rather than wait for the peer.
        clock: tells when time is over.
    """

    def __init__(
        self,
        sock: socket.socket,
        *,
        meter: Meter | None = None,
        timeout_s: float = 60.0,
        spin_s: float = SPIN_S,
        max_frame: int = wire.MAX_FRAME_BYTES,
        queues: bool = False,
        clock: Clock = MACHINE,
    ) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)
        self._party: Party | None = None
        self._meter = meter
        self._timeout_s = timeout_s
        self._vigil = Vigil(spin_s)
        self._max_frame = max_frame
        self._queues = queues
        self._clock = clock
        self._buffer = bytearray(READ_BYTES)
        self._start = 0
        self._end = 0
        # the frame that is arriving: its head, then its body
        self._header: wire.Header | None = None
        self._head = bytearray()
        self._part = bytearray(wire.HEADER.size)
        self._filled = 0
        self._begun: float | None = None
        # frames that are leaving; the first since ``_leaving``
        self._outgoing: deque[memoryview] = deque()
        self._leaving = 0.0
        self._sequence = 0
        self._depth = 0

    def serve_for(self, party: Party) -> None:
        """Name the party that answers what arrives here."""
        self._party = party

    def close(self) -> None:
        """Close the socket; the peer sees the end of the stream."""
        self._sock.close()

    def fileno(self) -> int:
        """The socket's descriptor, for waiting on several sources."""
        return self._sock.fileno()

    @property
    def buffered(self) -> bool:
        """Whether bytes that were read already wait to be parsed."""
        return self._end > self._start

    @property
    def ended(self) -> bool:
        """Whether the peer has closed its end, and everything it sent was read."""
        try:
            return not self.buffered and self._sock.recv(1, socket.MSG_PEEK) == b""
        except OSError:  # nothing there yet; or a broken connection, which reading will report
            return False

    @property
    def unsent(self) -> bool:
        """Whether something waits to be sent."""
        return bool(self._outgoing)

    @property
    def overdue(self) -> bool:
        """Whether the peer has taken too long over a frame that it is sending, or has been sent."""
        now = self._clock.now()
        return (self._begun is not None and now >= self._arrival(self._begun)) or (
            bool(self._outgoing) and now >= self._departure()
        )

    def _arrival(self, since: float) -> float:
        """Until when the frame that is arriving has time."""
        return since + self._timeout_s + (self._header.length / SLOWEST if self._header else 0.0)

    def _departure(self) -> float:
        """Until when the first frame that is leaving has time."""
        return self._leaving + self._timeout_s + self._outgoing[0].nbytes / SLOWEST

    # -- sending -----------------------------------------------------------------------------------------------------

    def notify(self, message: Message) -> None:
        self._send(message, wire.FrameKind.NOTIFY, 0)

    def post(self, message: Message) -> Callable[[], Message]:
        self._sequence += 1
        sequence = self._sequence
        self._send(message, wire.FrameKind.REQUEST, sequence)
        return lambda: self._await_reply(sequence)

    def _send(self, message: Message, kind: wire.FrameKind, sequence: int) -> None:
        frame = wire.encode(message, kind, sequence)
        if self._meter:
            self._meter.enter(Direction.TO_UNTRUSTED, message, kind, len(frame), frame)
        self._write(frame)

    def _write(self, frame: bytes) -> None:
        if not self._outgoing:
            self._leaving = self._clock.now()
        self._outgoing.append(memoryview(frame))
        self.flush()
        while self._outgoing and not self._queues:
            left = self._clock.until(self._departure())
            if not left:
                raise PeerLostError(f"the peer took no data for {self._timeout_s:g} s")
            select.select([], [self._sock], [], left)
            self.flush()

    def flush(self) -> None:
        """Send as much of what waits as the peer takes at once.

        Raises:
            PeerLostError: when it has gone.
        """
        try:
            while self._outgoing:
                first = self._outgoing[0]
                sent = self._sock.send(first)
                if sent < first.nbytes:
                    self._outgoing[0] = first[sent:]
                    continue
                self._outgoing.popleft()
                self._leaving = self._clock.now()
        except BlockingIOError:
            return
        except OSError:
            raise PeerLostError("the peer closed the connection while a message was being sent") from None

    # -- receiving ---------------------------------------------------------------------------------------------------

    def receive(self) -> tuple[wire.Header, Message]:
        """The next frame, for a party that serves several channels and answers when it has the answer.

        Raises:
            PeerLostError: when the peer has gone, stays silent, or takes too long over the frame.
            ProtocolError: when the frame is malformed, or says that the peer refused.
        """
        if not self.arrived():
            self._wait()
        header, head, body = self._header, self._head, self._part
        assert header is not None
        self._header, self._part, self._filled, self._begun = None, bytearray(wire.HEADER.size), 0, None
        if header.kind is wire.FrameKind.FAILURE:
            raise ProtocolError(f"the peer refused: {quoted(body.decode(errors='replace'), 500)}")
        message = wire.decode(header.type, body)
        if self._meter:
            self._meter.enter(Direction.TO_TRUSTED, message, header.kind, len(head) + len(body), head, body)
        return header, message

    def arrived(self) -> bool:
        """Take in what has come of the next frame, without waiting for more; whether it is whole.

        Raises:
            PeerLostError: when the peer has gone.
            ProtocolError: when the frame's head is malformed.
        """
        self.flush()  # nobody answers what has not left
        while True:
            while self._filled < len(self._part):
                if not self._fill():
                    return False
            if self._header is not None:
                return True
            self._header, self._head = wire.decode_header(self._part, self._max_frame), self._part
            # a buffer of the body's own, which the message's tensors then share
            self._part, self._filled = bytearray(self._header.length), 0

    def _wait(self) -> None:
        """Wait until the next frame is whole."""
        began = time.perf_counter()
        asleep = self._vigil.begin()
        since = self._clock.now()
        while not self.arrived():
            if time.perf_counter() < asleep:
                continue
            self._vigil.in_vain()
            left = self._clock.until(self._arrival(since))
            if not left:
                what = "stayed silent for" if self._begun is None else "did not finish a message within"
                raise PeerLostError(f"the peer {what} {self._timeout_s:g} s")
            self._poll.poll(left * 1000)
        if self._meter:
            self._meter.ledger.waited_s += time.perf_counter() - began

    def _fill(self) -> bool:
        """Bring the frame's part further with bytes that are here; False when there are none."""
        view = memoryview(self._part)[self._filled :]
        if self._start == self._end:
            direct = len(view) >= READ_BYTES
            try:
                count = self._sock.recv_into(view if direct else self._buffer)
            except BlockingIOError:
                return False
            except OSError:  # reset, or no sign of life from its host
                count = 0
            if count == 0:
                raise PeerLostError("the peer disconnected")
            if direct:
                self._filled += count
                return True
            self._start, self._end = 0, count
        if self._begun is None:
            self._begun = self._clock.now()
        step = min(len(view), self._end - self._start)
        view[:step] = memoryview(self._buffer)[self._start : self._start + step]
        self._start += step
        self._filled += step
        return True

    def reply(self, message: Message, sequence: int) -> None:
        """Answer the request of that sequence number."""
        self._send(message, wire.FrameKind.REPLY, sequence)

    def refuse(self, reason: str, sequence: int) -> None:
        """Answer the request of that sequence number with one line of reason."""
        self._write(wire.encode_failure(reason, sequence))

    def _await_reply(self, sequence: int) -> Message:
        while True:
            header, message = self.receive()
            if header.kind is wire.FrameKind.REPLY:
                if header.sequence != sequence:
                    raise ProtocolError(f"reply {header.sequence} where reply {sequence} was expected")
                return message
            self._serve(header, message)

    def serve_one(self) -> None:
        """Take one frame from the peer and answer it."""
        header, message = self.receive()
        self._serve(header, message)

    def _serve(self, header: wire.Header, message: Message) -> None:
        if self._party is None:
            raise ProtocolError("a message arrived before a party was named to serve it")
        if self._depth >= DEEPEST:
            raise ProtocolError(f"the peer made more than {DEEPEST} requests within one another")
        self._depth += 1
        try:
            reply = self._party.handle(message)
            if header.kind is wire.FrameKind.REQUEST and reply is None:
                raise ProtocolError(f"no answer to {type(message).__name__}")
        except PeerLostError:
            raise
        except LabError as error:
            if header.kind is not wire.FrameKind.REQUEST:
                raise
            self.refuse(str(error), header.sequence)
            return
        finally:
            self._depth -= 1
        if header.kind is wire.FrameKind.REQUEST and reply is not None:
            self.reply(reply, header.sequence)
