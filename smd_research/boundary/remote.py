"""The untrusted party on another host: how the two sides meet, what they must agree on, and the measurement tap.

The trusted side connects and says what it asks for: version of the wire, model, fingerprint of the weights, defense and
its parameters. The listening side accepts, or refuses in one line that both sides show. The connection then carries the
boundary; a second one, beside it, the tap. Neither is authenticated or encrypted.
"""

import contextlib
import secrets
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from smd_research.boundary import wire
from smd_research.boundary.addresses import accept, connect
from smd_research.boundary.channel import Meter, Party, Untrusted
from smd_research.boundary.control import ControlStream
from smd_research.boundary.process import UntrustedFactory, serve
from smd_research.boundary.stream import StreamChannel
from smd_research.core.errors import ConfigError, LabError, PeerLostError, ProtocolError

HELLO_S = 10.0
"""How long a listening party waits for what a connection has to say first."""


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
            raise ConfigError(f"{self._address} refused: {answer['refused']}")
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

    def serve(self, factory: UntrustedFactory, timeout_s: float) -> None:
        """Play the untrusted party until the guest leaves.

        Raises:
            ProtocolError: when the guest breaks the protocol, vanishes inside a request, or stays silent in one for
                ``timeout_s``.
        """
        channel = StreamChannel(self.sock, timeout_s=timeout_s)
        try:
            party = factory(channel)
            channel.serve_for(party)
            serve(party, channel, _TapCalls(self.tap, party) if self.tap else None)
        except LabError as error:
            if self.tap:
                with contextlib.suppress(PeerLostError):
                    self.tap.send(error)
            raise

    def close(self) -> None:
        """Close both connections."""
        self.sock.close()
        if self.tap:
            self.tap.close()


def welcome(listener: socket.socket, card: Mapping[str, Any], *, tap: bool) -> Guest:
    """Wait for a connection and hear what it asks for.

    Args:
        listener: where connections arrive.
        card: what the guest must ask for.
        tap: whether the measurement tap is offered.

    Raises:
        LabError: when the connection is refused, speaks something else, or leaves; one line that names it.
    """
    sock, peer = accept(listener)
    stream = ControlStream(sock, peer, HELLO_S)
    try:
        hello = stream.recv()
        if (objection := _objection(hello, card, tap)) is not None:
            stream.send({"refused": objection})
            raise ConfigError(f"{peer} refused: {objection}")
        session = secrets.token_hex(16)
        stream.send({"session": session})
        return Guest(peer, sock, _second(listener, session) if hello["tap"] else None)
    except BaseException:
        sock.close()
        raise


def _second(listener: socket.socket, session: str) -> ControlStream:
    """The guest's second connection; whoever else comes meanwhile is told to come back."""
    while True:
        sock, peer = accept(listener, HELLO_S)
        stream = ControlStream(sock, peer, HELLO_S)
        try:
            if stream.recv() == {"session": session}:
                stream.send({"session": session})
                return stream
            stream.send({"refused": "busy with another connection; try again"})
        except ProtocolError:
            pass
        stream.close()


def _objection(hello: Any, card: Mapping[str, Any], tap: bool) -> str | None:
    """Why a greeting is refused, or None."""
    if not isinstance(hello, dict) or not isinstance(hello.get("card"), dict) or "tap" not in hello:
        return "the greeting is malformed"
    if hello.get("wire") != wire.VERSION:
        return f"wire version {hello.get('wire')} asked, {wire.VERSION} served: install the same release on both sides"
    asked, served = _flat(hello["card"]), _flat(card)
    different = [
        f"{key}={asked.get(key, 'nothing')} asked, {served.get(key, 'nothing')} served"
        for key in sorted({*asked, *served})
        if asked.get(key) != served.get(key)
    ]
    if different:
        return f"{'; '.join(different)}: start both sides with the same words"
    if hello["tap"] and not tap:
        return "the measurement tap is off, which utility and memory are read through: start the server with tap=true"
    return None


def _flat(card: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted keys of nested mappings."""
    found: dict[str, Any] = {}
    for key, value in card.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found


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
            case [str(name), list(arguments)] if self._offers(name):
                return name, arguments
            case [str(name), list()]:
                raise ProtocolError(f"the measurement tap has no '{name[:40]}'")
            case _:
                raise ProtocolError("malformed call of the measurement tap")

    def _offers(self, name: str) -> bool:
        hidden = name.startswith("_") or name == "handle"
        return not hidden and callable(getattr(type(self._party), name, None))

    def send(self, value: Any) -> None:
        self._stream.send(value)
