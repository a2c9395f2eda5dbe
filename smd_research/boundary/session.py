"""The boundary: the one place where messages are carried, counted and recorded."""

import os
import socket
from collections.abc import Callable
from typing import Any, Literal

import torch

from smd_research.boundary.addresses import loopback_pair
from smd_research.boundary.channel import Channel, InProcessChannel, Meter, Party, Untrusted
from smd_research.boundary.ledger import Direction, Ledger
from smd_research.boundary.process import ProcessHost, UntrustedFactory
from smd_research.boundary.remote import Remote, RemoteHost
from smd_research.boundary.view import AdversaryView
from smd_research.core.errors import ConfigError, ProtocolError
from smd_research.core.observable import Observable
from smd_research.core.wrapper import BARE, Wrapper

Transport = Literal["inproc", "process", "tcp"]
TRANSPORTS: tuple[Transport, ...] = ("inproc", "process", "tcp")

Impostor = Callable[[UntrustedFactory], UntrustedFactory]
"""Turns the maker of an honest untrusted party into the maker of the one that takes its place."""


class Boundary:
    """Joins a trusted and an untrusted party over one of the transports.

    Args:
        transport: ``inproc`` (both parties here, no reference crosses), ``process`` (the untrusted one in a process of
            its own) or ``tcp`` (that process at the other end of a TCP connection).
        record: keep every frame, so that ``view`` can be asked for.
        timeout_s: how long a party may stay silent inside a request.
        threads: torch threads of an untrusted process; None takes this process's number.
        impostor: makes of the honest untrusted party the one that takes its place, for an active attack.
        remote: for ``tcp``, an untrusted party that listens on another host; without it a child process here plays it.

    Raises:
        ConfigError: for an unknown transport, or a remote party that this boundary cannot have.
    """

    def __init__(
        self,
        transport: str = "inproc",
        *,
        record: bool = True,
        timeout_s: float = 60.0,
        threads: int | None = None,
        impostor: Impostor | None = None,
        remote: Remote | None = None,
    ) -> None:
        if transport not in TRANSPORTS:
            raise ConfigError(f"transport={transport} is unknown: use one of {', '.join(TRANSPORTS)}")
        if remote and transport != "tcp":
            raise ConfigError(f"address={remote.address} needs transport=tcp, not {transport}")
        if remote and impostor:
            raise ConfigError("an active attack plays the untrusted party itself: leave address= out")
        self.transport = transport
        self._timeout_s = timeout_s
        self._threads = threads or torch.get_num_threads()
        self._meter = Meter(record=record)
        self._impostor = impostor
        self._remote = remote
        self._host: ProcessHost | RemoteHost | None = None
        self._untrusted: Untrusted | None = None
        self._public: tuple[int | None, tuple[tuple[int, ...], ...], Wrapper] = (None, (), BARE)

    def open(self, trusted: Party, factory: UntrustedFactory) -> Channel:
        """Start the untrusted party and return the trusted party's end of the channel."""
        if self._impostor:
            factory = self._impostor(factory)
        if self._remote:
            self._host = RemoteHost(trusted, self._remote, self._meter, timeout_s=self._timeout_s)
            return self._host.channel
        if self.transport != "inproc":
            pair = loopback_pair if self.transport == "tcp" else socket.socketpair
            self._host = ProcessHost(
                trusted, factory, self._meter, timeout_s=self._timeout_s, threads=self._threads, pair=pair
            )
            return self._host.channel
        outward = InProcessChannel(self._meter, Direction.TO_UNTRUSTED)
        inward = InProcessChannel(self._meter, Direction.TO_TRUSTED)
        self._untrusted = factory(inward)
        outward.connect(self._untrusted)
        inward.connect(trusted)
        return outward

    def close(self) -> None:
        """End the untrusted party."""
        if self._host:
            self._host.close()
            self._host = None
        self._untrusted = None

    def begin(self) -> None:
        """Start a new request: empty ledger, empty record."""
        self._meter.clear()
        self._public = (None, (), BARE)

    def publish(self, *, length: int | None, outputs: tuple[tuple[int, ...], ...], wrapper: Wrapper = BARE) -> None:
        """State what is known besides the messages' content: prompt length, every stream's output, public tokens."""
        self._public = (length, outputs, wrapper)

    def tap(self, name: str, *arguments: Any) -> Any:
        """Call a measurement method of the untrusted party; outside the boundary and uncounted."""
        if self._host:
            return self._host.control(name, *arguments)
        if self._untrusted is None:
            raise ProtocolError("the boundary is not open")
        return getattr(self._untrusted, name)(*arguments)

    @property
    def ledger(self) -> Ledger:
        """Counts of the request since ``begin``."""
        return self._meter.ledger

    @property
    def pids(self) -> tuple[int, ...]:
        """Process ids of the parties on this machine, this process first."""
        there = self._host.pid if self._host else None
        return (os.getpid(),) if there is None else (os.getpid(), there)

    def view(self, shows: frozenset[Observable]) -> AdversaryView:
        """The adversary's view of the request since ``begin``.

        Raises:
            ProtocolError: when the boundary does not record.
        """
        if self._meter.recorder is None:
            raise ProtocolError("this boundary does not record: open it with record=True")
        return AdversaryView(self._meter.recorder.messages(), shows, *self._public)

    def received_by_untrusted(self) -> bytes:
        """Every byte the untrusted party received since ``begin``, for canary tests."""
        if self._meter.recorder is None:
            raise ProtocolError("this boundary does not record: open it with record=True")
        return self._meter.recorder.received_by_untrusted()
