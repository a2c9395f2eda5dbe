"""Parties and the channel between them: re-entrant requests, one-way notifications.

While one party waits for its reply it serves the requests of the other, so a vault that asked the provider to decode
answers the provider's queries in the meantime. The same party code runs in one process or in two.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from torch import Tensor

from smd_research.boundary import wire
from smd_research.boundary.ledger import Direction, Ledger
from smd_research.boundary.messages import Message
from smd_research.boundary.recorder import Recorder
from smd_research.core.errors import ProtocolError


class Party(ABC):
    """One side of the boundary."""

    @abstractmethod
    def handle(self, message: Message) -> Message | None:
        """Answer a request, or take a notification and return None."""


class Untrusted(Party):
    """The side that an attack looks at, with the measurement tap.

    The tap serves utility metrics: it forces a continuation and hands out the logits. It lies outside the boundary,
    is not counted, and nothing of it enters the adversary's view.

    Attributes:
        forced: the continuation, None while the tap is off.
        logits: what was kept since it was armed.
        kept_at_most: bytes of logits that may be kept; a guest from another host has a limit.
    """

    def __init__(self) -> None:
        self.forced: tuple[int, ...] | None = None
        self.logits: list[Tensor] = []
        self.kept_at_most = math.inf

    def arm(self, forced: Sequence[int] | None) -> None:
        """Switch the tap on (teacher-force these ids and keep the logits) or, with None, off."""
        self.forced = None if forced is None else tuple(forced)
        self.logits = []

    def keep(self, logits: Tensor) -> None:
        """Keep the logits ``[..., vocab]`` of a step, where the tap is armed.

        Raises:
            ProtocolError: when the forced continuation has ended, or no more may be kept.
        """
        if self.forced is None:
            return
        if len(self.logits) >= len(self.forced):
            raise ProtocolError("the forced continuation has ended: arm the tap again")
        if (len(self.logits) + 1) * logits.nbytes > self.kept_at_most:
            raise ProtocolError(f"the measurement tap keeps no more than {self.kept_at_most / 2**20:.0f} MiB of logits")
        self.logits.append(logits.detach().clone())

    def tapped(self) -> list[Tensor]:
        """Logits ``[vocab]`` of the steps since the tap was armed."""
        return self.logits

    def memory(self) -> dict[str, int]:
        """Bytes this party holds, by kind: ``weights``, ``kv``."""
        return {}


class Channel(ABC):
    """One party's end of the boundary."""

    @abstractmethod
    def notify(self, message: Message) -> None:
        """Send a message that has no answer."""

    @abstractmethod
    def post(self, message: Message) -> Callable[[], Message]:
        """Send a request; the returned function waits for the reply, so that work can be done in between."""

    def request(self, message: Message) -> Message:
        """Send a request and wait for its reply."""
        return self.post(message)()

    def arrived(self) -> bool:
        """Whether the next message is here, so that taking it does not wait."""
        return True

    def fileno(self) -> int:
        """A descriptor to wait on for the next message."""
        raise ProtocolError("this channel has no descriptor: what it carries is here at once")


class Meter:
    """Counts and, when asked to, records every frame; sits at the trusted end only."""

    def __init__(self, *, record: bool) -> None:
        self.ledger = Ledger()
        self.recorder = Recorder() if record else None

    def clear(self) -> None:
        """Begin a new request."""
        self.ledger = Ledger()
        if self.recorder:
            self.recorder.clear()

    def enter(self, direction: Direction, message: Message, kind: int, length: int, *frame: bytes | bytearray) -> None:
        """Enter one frame of ``length`` bytes, which is needed, in one part or more, where it is recorded."""
        reply = kind == wire.FrameKind.REPLY
        self.ledger.count(direction, type(message).__name__, message.nbytes, length, reply=reply)
        if self.recorder:
            self.recorder.keep(direction, b"".join(frame))


class InProcessChannel(Channel):
    """Both parties in one process; no reference crosses, and every message is checked and counted as on a wire.

    Where frames are recorded each message is encoded and decoded; where they are not, it is copied.
    """

    def __init__(self, meter: Meter, outgoing: Direction) -> None:
        self._meter = meter
        self._outgoing = outgoing
        self._incoming = Direction.TO_TRUSTED if outgoing is Direction.TO_UNTRUSTED else Direction.TO_UNTRUSTED
        self._peer: Party | None = None

    def connect(self, peer: Party) -> None:
        """Name the party at the other end."""
        self._peer = peer

    def _carry(self, message: Message, direction: Direction, kind: wire.FrameKind) -> Message:
        if self._meter.recorder is None:
            copy, length = wire.crossed(message)
            self._meter.enter(direction, message, kind, length)
            return copy
        frame = bytearray(wire.encode(message, kind))
        self._meter.enter(direction, message, kind, len(frame), frame)
        return wire.decode(wire.decode_header(frame).type, memoryview(frame)[wire.HEADER.size :])

    def _deliver(self, message: Message, kind: wire.FrameKind) -> Message | None:
        if self._peer is None:
            raise ProtocolError("the channel is not connected: open it through Boundary.open")
        return self._peer.handle(self._carry(message, self._outgoing, kind))

    def notify(self, message: Message) -> None:
        self._deliver(message, wire.FrameKind.NOTIFY)

    def post(self, message: Message) -> Callable[[], Message]:
        reply = self._deliver(message, wire.FrameKind.REQUEST)
        if reply is None:
            raise ProtocolError(f"the peer did not answer {type(message).__name__}")
        answer = self._carry(reply, self._incoming, wire.FrameKind.REPLY)
        return lambda: answer
