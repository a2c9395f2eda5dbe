"""The door of a listening party: greets callers, all at once, and lets in one guest after another.

A caller who says nothing, or says it slowly, keeps nobody waiting: greetings are read as they arrive, and each caller
has one deadline for the whole of it.
"""

import contextlib
import errno
import secrets
import select
import socket
import time
from collections.abc import Mapping
from typing import Any

from smd_research.boundary import wire
from smd_research.boundary.addresses import accept
from smd_research.boundary.control import CALLS, GREETINGS, ControlFrame, ControlStream
from smd_research.boundary.remote import Guest
from smd_research.core.clock import MACHINE, Clock
from smd_research.core.errors import ConfigError, LabError, PeerLostError, ProtocolError
from smd_research.core.quoting import quoted

HELLO_S = 10.0
"""How long a caller may take to say all that has to be said before it is a guest."""
CALLERS = 64
"""How many are greeted at once; another one takes the place of who has been longest about it."""
ANSWER_S = 1.0


class _Caller:
    """A connection that is being greeted.

    Args:
        sock: the connection.
        peer: where it comes from.
        deadline: when its time is over.
    """

    def __init__(self, sock: socket.socket, peer: str, deadline: float) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.peer = peer
        self.deadline = deadline
        self.session = ""
        self.gone = False
        self._frame = ControlFrame(peer, GREETINGS)

    def hear(self) -> Any:
        """What it has said, when that is complete, else None; who leaves without a word is ``gone``: it only knocked.

        Raises:
            PeerLostError: when it has gone.
            ProtocolError: when it speaks something else.
        """
        while self._frame.missing:
            try:
                part = self.sock.recv(self._frame.missing)
            except BlockingIOError:
                return None
            except OSError:
                part = b""
            self.gone = not (part or self.session or self._frame.begun)
            if self.gone:
                return None
            if not part:
                raise PeerLostError(f"{self.peer} closed the connection")
            self._frame.add(part)
        value, self._frame = self._frame.value(), ControlFrame(self.peer, GREETINGS)
        return value

    def answer(self, value: Any) -> None:
        """Say something short.

        Raises:
            PeerLostError: when it has gone, or does not listen.
        """
        ControlStream(self.sock, self.peer, ANSWER_S).send(value)
        self.sock.setblocking(False)


class Door:
    """Where guests of a listening party come in.

    Args:
        listener: where connections arrive.
        card: what a guest must ask for.
        tap: whether the measurement tap is offered.
        timeout_s: how long a guest may take over a call of the tap.
        clock: tells when a caller's time is over.
    """

    def __init__(
        self,
        listener: socket.socket,
        card: Mapping[str, Any],
        *,
        tap: bool,
        timeout_s: float = 60.0,
        clock: Clock = MACHINE,
    ) -> None:
        self._listener = listener
        self._card = card
        self._tap = tap
        self._timeout_s = timeout_s
        self._clock = clock
        self._callers: dict[int, _Caller] = {}

    def welcome(self) -> Guest:
        """Greet whoever calls until one may come in.

        Raises:
            LabError: when a caller is refused, speaks something else, or leaves; one line that names it. The others
                are still at the door: call again.
            OSError: when the listener is closed.
        """
        while True:
            if self._listener.fileno() < 0:
                raise OSError(errno.EBADF, "the listener is closed")
            waiting = [self._listener, *(caller.sock for caller in self._callers.values())]
            deadlines = [caller.deadline for caller in self._callers.values()]
            left = self._clock.until(min(deadlines)) if deadlines else None
            ready = _readable(waiting, left)
            if self._listener in ready:
                self._admit()
                continue
            for caller in list(self._callers.values()):
                if caller.sock in ready:
                    guest = self._greet(caller)
                    if guest:
                        return guest
                elif caller.deadline <= self._clock.now():
                    self._send_away(caller)
                    raise PeerLostError(f"{caller.peer} did not finish its greeting within {HELLO_S:g} s")

    def close(self) -> None:
        """Send away whoever is still being greeted; the listener stays open."""
        for caller in list(self._callers.values()):
            self._send_away(caller)

    def _admit(self) -> None:
        try:
            sock, peer = accept(self._listener, ANSWER_S)
        except PeerLostError:  # left before it was taken
            return
        except OSError as error:
            if error.errno in (errno.EBADF, errno.EINVAL, errno.ENOTSOCK):  # it listens no more
                raise
            if self._callers:  # mostly that no descriptor is left
                self._send_away(self._longest())
            else:
                time.sleep(ANSWER_S)
            return
        if len(self._callers) >= CALLERS:
            self._send_away(self._longest())
        self._callers[sock.fileno()] = _Caller(sock, peer, self._clock.now() + HELLO_S)

    def _longest(self) -> _Caller:
        return min(self._callers.values(), key=lambda caller: caller.deadline)

    def _greet(self, caller: _Caller) -> Guest | None:
        """Take what a caller has said; a guest when nothing is left to say."""
        try:
            hello = caller.hear()
            if caller.gone:
                self._send_away(caller)
            if hello is None:
                return None
            if caller.session:
                raise PeerLostError(f"{caller.peer} spoke before its turn")
            if isinstance(hello, dict) and set(hello) == {"session"}:
                return self._join(caller, str(hello["session"]))
            if (objection := _objection(hello, self._card, self._tap)) is not None:
                caller.answer({"refused": objection})
                raise ConfigError(f"{caller.peer} refused: {objection}")
            caller.session = secrets.token_hex(16)
            caller.answer({"session": caller.session})
        except LabError:
            self._send_away(caller)
            raise
        except Exception as error:  # whatever a caller brings about ends that caller, and nothing else
            self._send_away(caller)
            raise ProtocolError(f"{caller.peer} cannot be greeted: {type(error).__name__}") from error
        if hello["tap"]:
            return None
        return self._let_in(caller, None)

    def _join(self, caller: _Caller, session: str) -> Guest | None:
        """The guest whose second connection this is; None, and the caller is sent away, when nobody waits for it."""
        first = next((one for one in self._callers.values() if one.session and one.session == session), None)
        if first is None:
            caller.answer({"refused": "busy with another connection; try again"})
            self._send_away(caller)
            return None
        caller.answer({"session": session})
        del self._callers[caller.sock.fileno()]
        return self._let_in(first, ControlStream(caller.sock, caller.peer, self._timeout_s, limits=CALLS))

    def _let_in(self, caller: _Caller, tap: ControlStream | None) -> Guest:
        del self._callers[caller.sock.fileno()]
        return Guest(caller.peer, caller.sock, tap)

    def _send_away(self, caller: _Caller) -> None:
        del self._callers[caller.sock.fileno()]
        with contextlib.suppress(OSError):
            caller.sock.close()


def _readable(sockets: list[socket.socket], timeout_s: float | None) -> set[socket.socket]:
    poll = select.poll()
    for sock in sockets:
        poll.register(sock, select.POLLIN)
    ready = {descriptor for descriptor, _ in poll.poll(None if timeout_s is None else 1000 * timeout_s)}
    return {sock for sock in sockets if sock.fileno() in ready}


def _objection(hello: Any, card: Mapping[str, Any], tap: bool) -> str | None:
    """Why a greeting is refused, or None."""
    if not isinstance(hello, dict) or not isinstance(hello.get("card"), dict) or "tap" not in hello:
        return "the greeting is malformed"
    if hello.get("wire") != wire.VERSION:
        asked_version = quoted(hello.get("wire"), 20)
        return f"wire version {asked_version} asked, {wire.VERSION} served: install the same release on both sides"
    asked, served = _flat(hello["card"]), _flat(card)
    different = [
        f"{quoted(key, 60)}={quoted(asked.get(key, 'nothing'), 60)} asked, {served.get(key, 'nothing')} served"
        for key in sorted({*asked, *served})
        if asked.get(key) != served.get(key)
    ]
    if different:
        shown = "; ".join(different[:8]) + ("; ..." if len(different) > 8 else "")
        return f"{shown}: start both sides with the same words"
    if hello["tap"] and not tap:
        return "the measurement tap is off, which utility and memory are read through: start the server with tap=true"
    return None


def _flat(card: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted keys of nested mappings."""
    found: dict[str, Any] = {}
    for key, value in card.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found
