"""Secure multi-party decoding as a service: one provider process, every user a process, and the baselines beside it.

Weights lie once in memory (``SharedWeights``): the provider maps them, a vault maps them while it prefills. The service
object is the laboratory's own hand on all processes; the parties themselves meet over a socket only.
"""

import contextlib
import multiprocessing
import signal
import socket
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Self

from smd_research.boundary.addresses import address_of, listen
from smd_research.boundary.process import fork_server
from smd_research.boundary.stream import SPIN_S
from smd_research.core.errors import ConfigError, LabError, PeerLostError
from smd_research.core.scratch import Scratch
from smd_research.defenses.smd.requests import ServiceOptions
from smd_research.defenses.smd.server import IDLE_S, serve_users
from smd_research.defenses.smd.stages import Stage
from smd_research.defenses.smd.users import Answer, Ask, Protection, UserOptions, live
from smd_research.models.bundle import Bundle
from smd_research.models.shared import SharedWeights

START_S = 120.0


class Child:
    """A process of the service and the connection it is commanded through."""

    def __init__(self, name: str, main: Callable[..., None], *arguments: object) -> None:
        self._control, theirs = multiprocessing.Pipe()
        self._process = fork_server().Process(target=main, args=(*arguments, theirs), daemon=True, name=name)
        self._process.start()
        theirs.close()
        self._name = name

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process.pid is not None
        return self._process.pid

    def send(self, value: object) -> None:
        """Command something."""
        try:
            self._control.send(value)
        except OSError:
            raise PeerLostError(f"the {self._name} process has gone") from None

    def recv(self, timeout_s: float) -> Any:
        """What it answers.

        Raises:
            LabError: which it met, or because it is gone or silent.
        """
        try:
            if not self._control.poll(timeout_s):
                raise PeerLostError(f"the {self._name} process has not answered for {timeout_s:g} s")
            answer = self._control.recv()
        except (EOFError, ConnectionError):
            raise PeerLostError(f"the {self._name} process ended unexpectedly") from None
        if isinstance(answer, LabError):
            raise answer
        return answer

    def obituary(self, wait_s: float = 0.5) -> str | None:
        """How the process ended, if it has or does within ``wait_s``; else None."""
        self._process.join(wait_s)
        code = self._process.exitcode
        if code is None:
            return None
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        return f"the {self._name} process {how}"

    def kill(self) -> None:
        """End the process at once."""
        self._process.kill()
        self._process.join()

    def close(self) -> None:
        """End the process."""
        self._control.close()
        self._process.join(timeout=2)
        if self._process.is_alive():
            self.kill()


class User:
    """A user of the service, in a process of its own."""

    def __init__(self, child: Child, provider: Child | None, patience_s: float) -> None:
        self.child = child
        self._provider = provider
        self._patience_s = patience_s

    def ask(self, ask: Ask) -> None:
        """Begin a request; it runs while others do."""
        self.child.send(ask)

    def answer(self) -> Answer:
        """Wait for the answer of the request begun.

        Raises:
            LabError: when the request failed, or the provider has died.
        """
        with _supervised(self._provider):
            answer: Answer = self.child.recv(self._patience_s)
        return answer

    def close(self) -> None:
        """End the user's process."""
        self.child.close()


@contextlib.contextmanager
def _supervised(provider: Child | None) -> Iterator[None]:
    """Say of a peer that was lost, where that is the cause, that the provider has died."""
    try:
        yield
    except PeerLostError:
        obituary = provider.obituary() if provider else None
        if obituary is None:
            raise
        raise PeerLostError(f"{obituary}: all requests of its users are lost; start the service again") from None


class Service:
    """One provider and any number of users on this machine.

    Args:
        bundle: the model.
        protection: how users are served: ``smd``, ``none`` (one batch, prompts in the open) or ``full_isolation``
            (every user a model copy and a process, no batch).
        options: public configuration.
        transport: ``unix`` or ``tcp``: the sockets that users and provider meet over.
        threads: torch threads of the provider.
        user_threads: torch threads of a user's process.
        timeout_s: how long a vault may take over an answer before its request fails, and a user over a frame.
        patience_s: how long an answer may take in all.
        idle_s: how long a user may ask for nothing before the connection is closed.
        users: how many are expected: parties only stay awake between messages when each has a core.
        clocked: measure the stages of decode steps.

    Raises:
        ConfigError: for an unknown transport.
    """

    def __init__(
        self,
        bundle: Bundle,
        protection: Protection = Protection.SMD,
        options: ServiceOptions | None = None,
        *,
        transport: str = "unix",
        threads: int = 1,
        user_threads: int = 1,
        timeout_s: float = 10.0,
        patience_s: float = 600.0,
        idle_s: float = IDLE_S,
        users: int = 2,
        clocked: bool = False,
    ) -> None:
        if transport not in ("unix", "tcp"):
            raise ConfigError(f"transport={transport} is unknown: use unix or tcp")
        self._protection = protection
        self._options = options or ServiceOptions()
        self._transport = transport
        self._threads = threads
        self._user_threads = user_threads
        self._timeout_s = timeout_s
        self._patience_s = patience_s
        self._idle_s = idle_s
        self._spin_s = SPIN_S if users < multiprocessing.cpu_count() else 0.0
        self._clocked = clocked
        self.weights = SharedWeights.of(bundle)
        self._scratch = Scratch()
        self._provider: Child | None = None
        self.address = ""
        self.users: list[User] = []

    def __enter__(self) -> Self:
        if self._protection is Protection.FULL_ISOLATION:
            return self
        place = str(self._scratch.path / "service") if self._transport == "unix" else "127.0.0.1:0"
        with contextlib.closing(listen(place)) as listener:
            self.address = address_of(listener)
            self._provider = self._start_provider(listener)
        self._provider.recv(START_S)
        return self

    def _start_provider(self, listener: socket.socket) -> Child:
        return Child(
            "provider",
            serve_users,
            self.weights,
            self._options,
            listener,
            self._threads,
            self._timeout_s,
            self._idle_s,
            self._spin_s,
            self._clocked,
        )

    def join(self) -> User:
        """Start a user's process and connect it.

        Raises:
            LabError: when it cannot be set up.
        """
        options = UserOptions(self._protection, self._options, self._patience_s, self._user_threads, self._spin_s)
        child = Child("user", live, self.weights, self.address, options)
        with _supervised(self._provider):
            child.recv(START_S)
        user = User(child, self._provider, self._patience_s)
        self.users.append(user)
        return user

    def set_threads(self, threads: int) -> None:
        """Change the number of torch threads of the provider."""
        if self._provider:
            self._provider.send(("threads", threads))
            self._provider.recv(START_S)

    def stages(self) -> dict[Stage, float]:
        """Seconds of each stage of all decode steps since the last call."""
        assert self._provider is not None
        self._provider.send(("stages",))
        seconds: dict[Stage, float] = self._provider.recv(START_S)
        return seconds

    def provider_kv_bytes(self) -> int:
        """Bytes of keys and values that the provider held before requests last left its batch."""
        if self._provider is None:
            return 0
        self._provider.send(("kv",))
        held: int = self._provider.recv(START_S)
        return held

    @property
    def pids(self) -> tuple[int, ...]:
        """Process ids of the provider, if there is one, and of the users."""
        provider = (self._provider.pid,) if self._provider else ()
        return (*provider, *(user.child.pid for user in self.users))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for user in self.users:
            user.close()
        if self._provider:
            self._provider.close()
        self._scratch.remove()
