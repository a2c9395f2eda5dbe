"""A channel over a stream socket: the same code for a socket pair between processes and for TCP."""

import select
import socket
import time
from collections.abc import Callable

from smd_research.boundary import wire
from smd_research.boundary.channel import Channel, Meter, Party
from smd_research.boundary.ledger import Direction
from smd_research.boundary.messages import Message
from smd_research.core.errors import LabError, PeerLostError, ProtocolError

READ_BYTES = 1 << 16
SPIN_S = 100e-6


class StreamChannel(Channel):
    """Frames over a connected stream socket.

    A receive first polls the socket for a short while (``spin_s``): the answer to a decode step's query comes within
    tens of microseconds, and staying awake for it saves the scheduler's wake-up on either side.

    Args:
        sock: a connected stream socket; the channel owns it.
        party: who serves requests that arrive here; may be set later through ``serve_for``.
        meter: counts frames; given at the trusted end only.
        timeout_s: how long the peer may stay silent inside a request.
        spin_s: how long to poll before sleeping.
        max_frame: largest body accepted, bytes.
    """

    def __init__(
        self,
        sock: socket.socket,
        *,
        meter: Meter | None = None,
        timeout_s: float = 60.0,
        spin_s: float = SPIN_S,
        max_frame: int = wire.MAX_FRAME_BYTES,
    ) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)
        self._party: Party | None = None
        self._meter = meter
        self._timeout_s = timeout_s
        self._spin_s = spin_s
        self._max_frame = max_frame
        self._buffer = bytearray(READ_BYTES)
        self._start = 0
        self._end = 0
        self._sequence = 0

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
            self._meter.enter(Direction.TO_UNTRUSTED, message, frame, kind)
        self._write(frame)

    def _write(self, frame: bytes) -> None:
        view = memoryview(frame)
        deadline = time.monotonic() + self._timeout_s
        try:
            while view:
                try:
                    view = view[self._sock.send(view) :]
                except BlockingIOError:
                    left = deadline - time.monotonic()
                    if left <= 0:
                        raise PeerLostError(f"the peer took no data for {self._timeout_s:g} s") from None
                    select.select([], [self._sock], [], left)
        except OSError:
            raise PeerLostError("the peer closed the connection while a message was being sent") from None

    # -- receiving ---------------------------------------------------------------------------------------------------

    def receive(self) -> tuple[wire.Header, Message]:
        """The next frame, for a party that serves several channels and answers when it has the answer.

        Raises:
            PeerLostError: when the peer has gone or stays silent.
            ProtocolError: when the frame is malformed, or says that the peer refused.
        """
        head = self._take(wire.HEADER.size)
        header = wire.decode_header(head, self._max_frame)
        body = self._take(header.length)
        if header.kind is wire.FrameKind.FAILURE:
            raise ProtocolError(f"the peer refused: {bytes(body).decode(errors='replace')}")
        message = wire.decode(header.type, body)
        if self._meter:
            self._meter.enter(Direction.TO_TRUSTED, message, head + body, header.kind)
        return header, message

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
        if header.kind is wire.FrameKind.REQUEST and reply is not None:
            self.reply(reply, header.sequence)

    def _take(self, count: int) -> bytearray:
        """Exactly ``count`` bytes in a buffer of their own, which the message's tensors then share."""
        out = bytearray(count)
        view = memoryview(out)
        filled = 0
        while filled < count:
            if self._start == self._end:
                if count - filled >= READ_BYTES:
                    filled += self._read_into(view[filled:])
                    continue
                self._start, self._end = 0, self._read_into(memoryview(self._buffer))
            step = min(count - filled, self._end - self._start)
            view[filled : filled + step] = memoryview(self._buffer)[self._start : self._start + step]
            self._start += step
            filled += step
        return out

    def _read_into(self, view: memoryview) -> int:
        began = time.perf_counter()
        spin_until = began + self._spin_s
        while True:
            try:
                count = self._sock.recv_into(view)
            except BlockingIOError:
                if time.perf_counter() >= spin_until and not self._poll.poll(self._timeout_s * 1000):
                    raise PeerLostError(f"the peer stayed silent for {self._timeout_s:g} s") from None
                continue
            except OSError:  # reset, or no sign of life from its host
                count = 0
            if self._meter:
                self._meter.ledger.waited_s += time.perf_counter() - began
            if count == 0:
                raise PeerLostError("the peer disconnected")
            return count
