"""The boundary: the one place where messages are carried, counted and recorded."""

import os
from typing import Any, Literal

import torch

from smd_research.boundary.channel import Channel, InProcessChannel, Meter, Party, Untrusted
from smd_research.boundary.ledger import Direction, Ledger
from smd_research.boundary.process import ProcessHost, UntrustedFactory
from smd_research.boundary.view import AdversaryView
from smd_research.core.errors import ConfigError, ProtocolError
from smd_research.core.observable import Observable

Transport = Literal["inproc", "process"]
TRANSPORTS: tuple[Transport, ...] = ("inproc", "process")


class Boundary:
    """Joins a trusted and an untrusted party over one of the transports.

    Args:
        transport: ``inproc`` (both parties here, every message still encoded and decoded) or ``process``.
        record: keep every frame, so that ``view`` can be asked for.
        timeout_s: how long a party may stay silent inside a request.
        threads: torch threads of an untrusted process; None takes this process's number.
        impostor: takes the honest untrusted party's place, for an active attack.

    Raises:
        ConfigError: for an unknown transport.
    """

    def __init__(
        self,
        transport: str = "inproc",
        *,
        record: bool = True,
        timeout_s: float = 60.0,
        threads: int | None = None,
        impostor: UntrustedFactory | None = None,
    ) -> None:
        if transport not in TRANSPORTS:
            raise ConfigError(f"transport={transport} is unknown: use one of {', '.join(TRANSPORTS)}")
        self.transport = transport
        self._timeout_s = timeout_s
        self._threads = threads or torch.get_num_threads()
        self._meter = Meter(record=record)
        self._impostor = impostor
        self._host: ProcessHost | None = None
        self._untrusted: Untrusted | None = None
        self._public: tuple[int | None, tuple[tuple[int, ...], ...]] = (None, ())

    def open(self, trusted: Party, factory: UntrustedFactory) -> Channel:
        """Start the untrusted party and return the trusted party's end of the channel."""
        factory = self._impostor or factory
        if self.transport == "process":
            self._host = ProcessHost(trusted, factory, self._meter, timeout_s=self._timeout_s, threads=self._threads)
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
        self._public = (None, ())

    def publish(self, *, length: int | None, outputs: tuple[tuple[int, ...], ...]) -> None:
        """State what the protocol gives away besides its messages' content: prompt length and every stream's output."""
        self._public = (length, outputs)

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
        """Process ids of the parties, this process first."""
        return (os.getpid(), *((self._host.pid,) if self._host else ()))

    def view(self, shows: frozenset[Observable]) -> AdversaryView:
        """The adversary's view of the request since ``begin``.

        Raises:
            ProtocolError: when the boundary does not record.
        """
        if self._meter.recorder is None:
            raise ProtocolError("this boundary does not record: open it with record=True")
        length, outputs = self._public
        return AdversaryView(self._meter.recorder.messages(), shows, length, outputs)

    def received_by_untrusted(self) -> bytes:
        """Every byte the untrusted party received since ``begin``, for canary tests."""
        if self._meter.recorder is None:
            raise ProtocolError("this boundary does not record: open it with record=True")
        return self._meter.recorder.received_by_untrusted()
