"""What passes beside the boundary between two hosts: the handshake and the measurement tap, uncounted and unseen.

A frame is a mark, two lengths, JSON text, and the tensors the text refers to in safetensors' format; nothing is ever
unpickled.
"""

import json
import socket
import struct
from dataclasses import dataclass
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from smd_research.core.clock import MACHINE, Clock
from smd_research.core.errors import LabError, PeerLostError, ProtocolError
from smd_research.core.quoting import quoted

_HEADER = struct.Struct("<4sII")
_MARK = b"SMDC"
_TENSOR = "tensor:"
MAX_DEPTH = 16


@dataclass(frozen=True)
class Limits:
    """How large a frame may be: bytes of its text and of its tensors."""

    text: int
    tensors: int


ANSWERS = Limits(text=2**20, tensors=2**30)
CALLS = Limits(text=2**20, tensors=0)
GREETINGS = Limits(text=2**16, tensors=0)


class ControlFrame:
    """A frame as far as it has arrived.

    Args:
        peer: how errors call the other side.
        limits: how large it may become.
    """

    def __init__(self, peer: str, limits: Limits) -> None:
        self._peer = peer
        self._limits = limits
        self._head = bytearray()
        self._body = bytearray()
        self._lengths: tuple[int, int] | None = None

    @property
    def begun(self) -> bool:
        """Whether any of it has arrived."""
        return bool(self._head)

    @property
    def missing(self) -> int:
        """Bytes that are known to be still on their way."""
        return _HEADER.size - len(self._head) if self._lengths is None else sum(self._lengths) - len(self._body)

    def add(self, part: bytes) -> None:
        """Take in at most ``missing`` bytes.

        Raises:
            ProtocolError: when they are no frame, or announce one that is too large.
        """
        if self._lengths is not None:
            self._body += part
            return
        self._head += part
        if len(self._head) < _HEADER.size:
            return
        mark, text, tensors = _HEADER.unpack(self._head)
        if mark != _MARK:
            raise ProtocolError(f"{self._peer} speaks something else than this protocol: is the address right?")
        if text > self._limits.text or tensors > self._limits.tensors:
            raise ProtocolError(f"{self._peer} sent an oversized control frame")
        self._lengths = text, tensors

    def value(self) -> Any:
        """What the whole frame says.

        Raises:
            ProtocolError: when it is malformed, or an error of the other side.
        """
        assert self._lengths is not None
        text, blob = self._body[: self._lengths[0]], bytes(self._body[self._lengths[0] :])
        try:
            value = _with_tensors(json.loads(text), safetensors.torch.load(blob) if blob else {}, MAX_DEPTH)
        except (ValueError, KeyError, TypeError, RecursionError, safetensors.SafetensorError):
            raise ProtocolError(f"{self._peer} sent a malformed control frame") from None
        if isinstance(value, dict) and set(value) == {"error"}:
            raise ProtocolError(quoted(value["error"]))
        return value


class ControlStream:
    """JSON values with tensors in them, over a connected stream socket.

    Args:
        sock: the socket; the stream owns it.
        peer: how errors call the other side.
        timeout_s: how long the other side may take over a whole frame, whichever way it goes.
        limits: how large a frame of the other side may be.
        clock: tells when the time is over.
    """

    def __init__(
        self,
        sock: socket.socket,
        peer: str,
        timeout_s: float,
        *,
        limits: Limits = ANSWERS,
        clock: Clock = MACHINE,
    ) -> None:
        self.sock = sock
        self._peer = peer
        self._timeout_s = timeout_s
        self._limits = limits
        self._clock = clock

    def fileno(self) -> int:
        """The socket's descriptor, for waiting on several sources."""
        return self.sock.fileno()

    @property
    def ended(self) -> bool:
        """Whether the other side has closed; waits for it to say anything."""
        try:
            self.sock.settimeout(self._timeout_s)
            return self.sock.recv(1, socket.MSG_PEEK) == b""
        except OSError:
            return True

    def close(self) -> None:
        """Close the socket."""
        self.sock.close()

    def send(self, value: Any) -> None:
        """Send a value of None, booleans, numbers, texts, tensors, and lists and dictionaries of them.

        An error of the lab travels as its one line and is raised at the other side.

        Raises:
            ProtocolError: for a value of another kind.
            PeerLostError: when the other side has gone, or took too long.
        """
        if isinstance(value, LabError):
            value = {"error": str(value)}
        tensors: dict[str, Tensor] = {}
        text = json.dumps(_without_tensors(value, tensors)).encode()
        blob = safetensors.torch.save(tensors) if tensors else b""
        try:
            self.sock.settimeout(self._timeout_s)  # sendall: for the whole of it
            self.sock.sendall(_HEADER.pack(_MARK, len(text), len(blob)) + text + blob)
        except OSError:
            raise PeerLostError(f"{self._peer} closed the connection") from None

    def recv(self) -> Any:
        """The next value.

        Raises:
            ProtocolError: when the other side speaks something else, or sent an error.
            PeerLostError: when it has gone, stayed silent, or took too long over the frame.
        """
        frame = ControlFrame(self._peer, self._limits)
        deadline = self._clock.now() + self._timeout_s
        while frame.missing:
            try:
                left = self._clock.until(deadline)
                if not left:
                    raise TimeoutError
                self.sock.settimeout(left)
                part = self.sock.recv(min(frame.missing, 1 << 20))
            except TimeoutError:
                raise PeerLostError(f"{self._peer} stayed silent for {self._timeout_s:g} s: is it busy?") from None
            except OSError:
                part = b""
            if not part:
                raise PeerLostError(f"{self._peer} closed the connection")
            frame.add(part)
        return frame.value()


def _without_tensors(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Tensor):
        name = str(len(tensors))
        tensors[name] = value.detach().cpu().contiguous()
        return {_TENSOR: name}
    if isinstance(value, list | tuple):
        return [_without_tensors(item, tensors) for item in value]
    if isinstance(value, dict):
        return {str(key): _without_tensors(item, tensors) for key, item in value.items()}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ProtocolError(f"a {type(value).__name__} cannot cross beside the boundary: give plain values and tensors")


def _with_tensors(value: Any, tensors: dict[str, Tensor], depth: int) -> Any:
    if not isinstance(value, list | dict):
        return value
    if not depth:
        raise ValueError("nested too deep")
    if isinstance(value, list):
        return [_with_tensors(item, tensors, depth - 1) for item in value]
    if set(value) == {_TENSOR}:
        return tensors[value[_TENSOR]]
    return {key: _with_tensors(item, tensors, depth - 1) for key, item in value.items()}
