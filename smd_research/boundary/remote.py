"""The untrusted party on another host: how the two sides meet, what they must agree on, and the measurement tap.

The trusted side connects and says what it asks for: version of the wire, model, fingerprint of the weights, defense and
its parameters. The listening side accepts, or refuses in one line that both sides show (``door``). The connection then
carries the boundary; a second one, beside it, the tap. Neither is authenticated or encrypted.
"""

import contextlib
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from smd_research.boundary import wire
from smd_research.boundary.addresses import connect
from smd_research.boundary.channel import Meter, Party, Untrusted
from smd_research.boundary.control import ANSWERS, ControlStream
from smd_research.boundary.process import UntrustedFactory, serve
from smd_research.boundary.stream import StreamChannel
from smd_research.core.clock import MACHINE, Clock
from smd_research.core.errors import ConfigError, LabError, PeerLostError, ProtocolError
from smd_research.core.quoting import quoted

IDLE_S = 600.0
"""How long a guest may leave a listening party without work."""
LONGEST_FORCED = 2**16
TOKENS = 2**31


@dataclass(frozen=True)
class Remote:
    """An untrusted party that listens elsewhere.

    Attributes:
        address: where.
        card: what both sides must have in common, as plain values: model, weights, defense, its parameters.
        tap: ask for the measurement tap, which utility and memory are read through.
    """

    address: str
    card: Mapping[str, Any]
    tap: bool = True


class RemoteHost:
    """The trusted side's end of an untrusted party on another host.

    Args:
        trusted: who answers the requests that come back.
        remote: where the party listens, and what must agree.
        meter: counts every frame, at the trusted end.
        timeout_s: how long either side may stay silent inside a request.

    Raises:
        PeerLostError: when nobody can be reached there.
        ProtocolError: when whoever listens speaks something else.
        ConfigError: when it refuses.
    """

    pid = None

    def __init__(self, trusted: Party, remote: Remote, meter: Meter, *, timeout_s: float) -> None:
        self._address = remote.address
        self._tap: ControlStream | None = None
        data = self._connect(timeout_s)
        try:
            hello = {"wire": wire.VERSION, "card": dict(remote.card), "tap": remote.tap}
            session = self._ask(data, hello)
            if remote.tap:
                self._tap = self._connect(timeout_s)
                self._ask(self._tap, {"session": session})
        except BaseException:
            data.close()
            if self._tap:
                self._tap.close()
            raise
        self.channel = StreamChannel(data.sock, meter=meter, timeout_s=timeout_s)
        self.channel.serve_for(trusted)

    def _connect(self, timeout_s: float) -> ControlStream:
        return ControlStream(connect(self._address), self._address, timeout_s)

    def _ask(self, stream: ControlStream, hello: dict[str, Any]) -> str:
        stream.send(hello)
        answer = stream.recv()
        if not isinstance(answer, dict) or not {"session", "refused"} & set(answer):
            raise ProtocolError(f"{self._address} sent a malformed answer to the greeting")
        if "refused" in answer:
            raise ConfigError(f"{self._address} refused: {quoted(answer['refused'], 500)}")
        return str(answer["session"])

    def control(self, name: str, *arguments: Any) -> Any:
        """Call a measurement method of the untrusted party; outside the boundary, uncounted."""
        if self._tap is None:
            raise ProtocolError(f"the connection to {self._address} was opened without the measurement tap")
        self._tap.send([name, list(arguments)])
        return self._tap.recv()

    def close(self) -> None:
        """Leave; the listening side goes on to its next connection."""
        self.channel.close()
        if self._tap:
            self._tap.close()


@dataclass(frozen=True)
class Guest:
    """A connection whose greeting was accepted.

    Attributes:
        peer: where it comes from.
        sock: carries the boundary.
        tap: carries the measurement tap, where the guest asked for it.
    """

    peer: str
    sock: socket.socket
    tap: ControlStream | None

    def serve(
        self, factory: UntrustedFactory, timeout_s: float, *, idle_s: float = IDLE_S, clock: Clock = MACHINE
    ) -> None:
        """Play the untrusted party until the guest leaves.

        Args:
            factory: makes the party.
            timeout_s: how long a message may take, and how long the guest may stay silent inside a request.
            idle_s: how long the guest may ask for nothing.
            clock: tells when those are over.

        Raises:
            ProtocolError: when the guest breaks the protocol, vanishes inside a request, or takes too long.
        """
        channel = StreamChannel(self.sock, timeout_s=timeout_s, clock=clock)
        try:
            party = factory(channel)
            channel.serve_for(party)
            party.kept_at_most = ANSWERS.tensors
            serve(party, channel, _TapCalls(self.tap, party) if self.tap else None, idle_s=idle_s, clock=clock)
        except Exception as error:
            if self.tap:
                said = error if isinstance(error, LabError) else ProtocolError(f"failed: {type(error).__name__}")
                with contextlib.suppress(PeerLostError):
                    self.tap.send(said)
            raise

    def close(self) -> None:
        """Close both connections."""
        self.sock.close()
        if self.tap:
            self.tap.close()


def _forced(arguments: list[Any]) -> bool:
    """Whether ``arm`` may be called so: with None, or with token ids."""
    match arguments:
        case [None]:
            return True
        case [list(ids)]:
            return len(ids) <= LONGEST_FORCED and all(type(i) is int and 0 <= i < TOKENS for i in ids)
    return False


def _nothing(arguments: list[Any]) -> bool:
    return not arguments


_CALLS: dict[str, Callable[[list[Any]], bool]] = {"arm": _forced, "tapped": _nothing, "memory": _nothing}
"""All that the measurement tap offers to another host, and which arguments each call takes."""


class _TapCalls:
    """The measurement tap as the serving loop reads it: which method of the party, and its arguments."""

    def __init__(self, stream: ControlStream, party: Untrusted) -> None:
        self._stream = stream
        self._party = party

    def fileno(self) -> int:
        return self._stream.fileno()

    def recv(self) -> tuple[str, list[Any]]:
        if self._stream.ended:
            raise EOFError
        match self._stream.recv():
            case [str(name), list(arguments)]:
                if name not in _CALLS:
                    raise ProtocolError(f"the measurement tap has no '{quoted(name, 40)}'")
                if not _CALLS[name](arguments):
                    raise ProtocolError(f"the measurement tap cannot do '{name}' with these arguments")
                return name, arguments
            case _:
                raise ProtocolError("malformed call of the measurement tap")

    def send(self, value: Any) -> None:
        self._stream.send(value)
