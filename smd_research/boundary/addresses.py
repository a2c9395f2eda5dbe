"""Stream sockets by address: ``HOST:PORT`` (``[::1]:7000`` for IPv6) or the path of a Unix socket.

Nothing here authenticates or encrypts: whoever reaches the port is served, whoever sees the wire reads it.
"""

import contextlib
import os
import socket
import stat
from dataclasses import dataclass
from pathlib import Path

from smd_research.core.errors import ConfigError, PeerLostError, UnreachableError

CONNECT_S = 10.0
BACKLOG = 128
_KEEPALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}


@dataclass(frozen=True)
class Address:
    """Where a party listens: a Unix ``path``, or ``host`` and ``port``."""

    host: str = ""
    port: int = 0
    path: str = ""

    @classmethod
    def parse(cls, text: str) -> "Address":
        """Read an address as a user writes it.

        Raises:
            ConfigError: when it is neither ``HOST:PORT`` nor a path (which holds a ``/``).
        """
        if "/" in text:
            return cls(path=text)
        host, _, port = text.rpartition(":")
        if not host or not port.isdecimal() or int(port) > 65535:
            raise ConfigError(
                f"address={text} cannot be read: write HOST:PORT, e.g. 127.0.0.1:7000, or a socket's path"
            )
        return cls(host.removeprefix("[").removesuffix("]"), int(port))

    def __str__(self) -> str:
        if self.path:
            return self.path
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def listen(address: str) -> socket.socket:
    """A socket that waits for connections at ``address``; port 0 takes a free one (see ``address_of``).

    Raises:
        ConfigError: when the address cannot be read or had, e.g. because another process listens there.
    """
    where = Address.parse(address)
    try:
        if where.path:
            return _listen_at_path(where.path)
        family, _, _, _, place = socket.getaddrinfo(where.host, where.port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(place)
            listener.listen(BACKLOG)
        except OSError:
            listener.close()
            raise
        return listener
    except OSError as error:
        raise ConfigError(f"cannot listen at {where}: {_reason(error)}; choose another address=") from None


def _listen_at_path(path: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if _is_stale(path):
            Path(path).unlink()
        listener.bind(path)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def _is_stale(path: str) -> bool:
    """Whether a socket lies at ``path`` that nobody listens on, as a killed process leaves it."""
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):  # noqa: PTH116 (an error is an answer, too)
            return False
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.connect(path)
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
    return False


def accept(listener: socket.socket, timeout_s: float | None = None) -> tuple[socket.socket, str]:
    """The next connection and where it comes from; waits for ever without ``timeout_s``.

    Raises:
        PeerLostError: when nobody came in time.
    """
    listener.settimeout(timeout_s)
    try:
        while True:
            with contextlib.suppress(ConnectionError):  # one that left before it was taken
                sock, peer = listener.accept()
                break
    except (TimeoutError, BlockingIOError):
        raise PeerLostError(f"nobody connected to {address_of(listener)} within {timeout_s:g} s") from None
    finally:
        listener.settimeout(None)
    with contextlib.suppress(OSError):  # one that has left again
        tune(sock)
    return sock, str(Address(peer[0], peer[1])) if isinstance(peer, tuple) else address_of(listener)


def connect(address: str, timeout_s: float = CONNECT_S) -> socket.socket:
    """A connection to whoever listens at ``address``.

    Raises:
        ConfigError: when the address cannot be read.
        UnreachableError: when it cannot be reached.
    """
    where = Address.parse(address)
    try:
        if where.path:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            sock.settimeout(timeout_s)
            try:
                sock.connect(where.path)
            except OSError:
                sock.close()
                raise
        else:
            sock = socket.create_connection((where.host, where.port), timeout_s)
    except OSError as error:
        raise UnreachableError(f"cannot reach {where}: {_reason(error)}; does a server listen there?") from None
    sock.settimeout(None)
    tune(sock)
    return sock


def knock(address: str) -> None:
    """See whether somebody listens at ``address``, without a word.

    Raises:
        ConfigError: when the address cannot be read.
        UnreachableError: when it cannot be reached.
    """
    connect(address).close()


def address_of(listener: socket.socket) -> str:
    """Where a listener listens, as ``connect`` takes it."""
    name = listener.getsockname()
    return str(Address(name[0], name[1])) if isinstance(name, tuple) else str(name)


def loopback_pair() -> tuple[socket.socket, socket.socket]:
    """Two ends of a TCP connection over 127.0.0.1, like ``socket.socketpair``."""
    with contextlib.closing(listen("127.0.0.1:0")) as listener:
        near = connect(address_of(listener))
        while True:
            far, peer = accept(listener, CONNECT_S)
            if peer == address_of(near):  # and not a stranger who met the open port
                return near, far
            far.close()


def tune(sock: socket.socket) -> None:
    """Send small messages at once, and notice within half a minute that a silent peer's host has gone."""
    if sock.family == socket.AF_UNIX:
        return
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE.items():
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _reason(error: OSError) -> str:
    return "it did not answer in time" if isinstance(error, TimeoutError) else (error.strerror or str(error)).lower()
