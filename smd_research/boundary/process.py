"""The untrusted party in an OS process of its own, joined by a Unix socket pair or a TCP connection.

Children come from a fork server that has the heavy imports loaded: it never held a secret, never ran a parallel region
(a fork after one can hang the child), and starts a party in tens of milliseconds instead of an interpreter's seconds.
"""

import contextlib
import multiprocessing
import select
import signal
import socket
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any, Protocol

import torch

from smd_research.boundary.channel import Channel, Meter, Party, Untrusted
from smd_research.boundary.script import main_script, without_script
from smd_research.boundary.segment import Parcel
from smd_research.boundary.stream import SPIN_S, StreamChannel
from smd_research.boundary.vigil import Vigil
from smd_research.core.clock import MACHINE, Clock
from smd_research.core.errors import LabError, PeerLostError

UntrustedFactory = Callable[[Channel], Untrusted]
PRELOAD = ["torch", "transformers", "transformers.models.llama.modeling_llama", "smd_research.boundary"]


def fork_server() -> multiprocessing.context.ForkServerContext:
    """Starts processes from a server that has the heavy imports loaded."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    return context


def _serve(factory: UntrustedFactory, sock: socket.socket, control: Connection, threads: int, timeout_s: float) -> None:
    """Main of the untrusted process: answer the boundary and, apart from it, the measurement tap."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(threads)
    channel = StreamChannel(sock, timeout_s=timeout_s)
    try:
        party = factory(channel)
        channel.serve_for(party)
        control.send(None)
        serve(party, channel, control)
    except PeerLostError:
        return
    except LabError as error:
        with contextlib.suppress(OSError):
            control.send(error)


class Control(Protocol):
    """Carries calls of the party's measurement methods, and their answers."""

    def fileno(self) -> int:
        """The file descriptor that says when a call has come."""

    def recv(self) -> tuple[str, Sequence[Any]]:
        """The next call; EOFError when the caller has left."""

    def send(self, value: Any, /) -> None:
        """Answer a call."""


def serve(
    party: Untrusted,
    channel: StreamChannel,
    control: Control | None,
    *,
    idle_s: float | None = None,
    clock: Clock = MACHINE,
) -> None:
    """Answer the boundary and, apart from it, the measurement tap, until the peer leaves between two messages.

    Args:
        party: answers.
        channel: to the peer.
        control: carries calls of the tap, where there is one.
        idle_s: how long the peer may ask for nothing; None waits for ever.
        clock: tells when that is over.

    Raises:
        PeerLostError: when the peer vanishes inside a message or a request, or asks for nothing for too long.
    """
    sources = _Ready(channel.fileno(), *([control.fileno()] if control else []))
    while True:
        while channel.buffered:
            channel.serve_one()
        ready = sources.wait(None if idle_s is None else clock.until(clock.now() + idle_s))
        if not ready:
            raise PeerLostError(f"the peer asked for nothing for {idle_s:g} s")
        if channel.fileno() in ready and channel.ended:
            return
        if control and control.fileno() in ready:
            try:
                name, arguments = control.recv()
            except EOFError:
                control, sources = None, _Ready(channel.fileno())
                continue
            control.send(getattr(party, name)(*arguments))
        else:
            channel.serve_one()


class _Ready:
    """Waits on several descriptors, awake for a short while before it sleeps."""

    def __init__(self, *descriptors: int) -> None:
        self._vigil = Vigil(SPIN_S)
        self._poll = select.poll()
        for descriptor in descriptors:
            self._poll.register(descriptor, select.POLLIN)

    def wait(self, timeout_s: float | None) -> list[int]:
        """Descriptors with something to read, or whose other end has closed; none when nothing came in time."""
        awake_until = self._vigil.begin()
        while time.perf_counter() < awake_until:
            if events := self._poll.poll(0):
                return [descriptor for descriptor, _ in events]
        self._vigil.in_vain()
        events = self._poll.poll(None if timeout_s is None else 1000 * timeout_s)
        return [descriptor for descriptor, _ in events]


class ProcessHost:
    """Runs an untrusted party in its own process.

    Args:
        trusted: who answers the requests that come back.
        factory: builds the untrusted party at the other side; what it carries is the deployment's public set-up.
        meter: counts every frame, at the trusted end.
        timeout_s: how long either side may stay silent inside a request.
        threads: torch threads of the untrusted process.
        pair: makes the two ends of the connection between them.
    """

    def __init__(
        self,
        trusted: Party,
        factory: UntrustedFactory,
        meter: Meter,
        *,
        timeout_s: float,
        threads: int,
        pair: Callable[[], tuple[socket.socket, socket.socket]] = socket.socketpair,
    ) -> None:
        ours, theirs = pair()
        self._control, other = multiprocessing.Pipe()
        self._process = fork_server().Process(
            target=_serve,
            args=(Parcel(factory, main_script()), theirs, other, threads, timeout_s),
            daemon=True,
            name="untrusted",
        )
        with without_script():
            self._process.start()
        theirs.close()
        other.close()
        self.channel = StreamChannel(ours, meter=meter, timeout_s=timeout_s)
        self.channel.serve_for(trusted)
        self._timeout_s = timeout_s
        self._answer()

    @property
    def pid(self) -> int:
        """Process id of the untrusted party."""
        assert self._process.pid is not None
        return self._process.pid

    def control(self, name: str, *arguments: Any) -> Any:
        """Call a measurement method of the untrusted party (the tap, memory); outside the boundary, uncounted."""
        try:
            self._control.send((name, arguments))
        except OSError:
            raise PeerLostError("the untrusted process has gone") from None
        return self._answer()

    def _answer(self) -> Any:
        try:
            if not self._control.poll(max(self._timeout_s, 60.0)):
                raise PeerLostError("the untrusted process does not answer")
            answer = self._control.recv()
        except (EOFError, ConnectionError):
            raise PeerLostError("the untrusted process ended unexpectedly") from None
        if isinstance(answer, LabError):
            raise answer
        return answer

    def close(self) -> None:
        """End the process."""
        self.channel.close()
        self._control.close()
        self._process.join(timeout=2)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
