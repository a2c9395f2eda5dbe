"""What passes beside the boundary between two hosts: the handshake and the measurement tap, uncounted and unseen.

A frame is a mark, two lengths, JSON text, and the tensors the text refers to in safetensors' format; nothing is ever
unpickled.
"""

import json
import socket
import struct
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from smd_research.core.errors import LabError, PeerLostError, ProtocolError

_HEADER = struct.Struct("<4sII")
_MARK = b"SMDC"
_TENSOR = "tensor:"
MAX_TEXT_BYTES = 2**20
MAX_TENSOR_BYTES = 1 << 30


class ControlStream:
    """JSON values with tensors in them, over a connected stream socket.

    Args:
        sock: the socket; the stream owns it.
        peer: how errors call the other side.
        timeout_s: how long the other side may take to answer or to take data.
    """

    def __init__(self, sock: socket.socket, peer: str, timeout_s: float) -> None:
        sock.settimeout(timeout_s)
        self.sock = sock
        self._peer = peer
        self._timeout_s = timeout_s

    def fileno(self) -> int:
        """The socket's descriptor, for waiting on several sources."""
        return self.sock.fileno()

    @property
    def ended(self) -> bool:
        """Whether the other side has closed; waits for it to say anything."""
        try:
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
            PeerLostError: when the other side has gone.
        """
        if isinstance(value, LabError):
            value = {"error": str(value)}
        tensors: dict[str, Tensor] = {}
        text = json.dumps(_without_tensors(value, tensors)).encode()
        blob = safetensors.torch.save(tensors) if tensors else b""
        try:
            self.sock.sendall(_HEADER.pack(_MARK, len(text), len(blob)) + text + blob)
        except OSError:
            raise PeerLostError(f"{self._peer} closed the connection") from None

    def recv(self) -> Any:
        """The next value.

        Raises:
            ProtocolError: when the other side speaks something else, or sent an error.
            PeerLostError: when it has gone, or stayed silent.
        """
        mark, length, tensor_bytes = _HEADER.unpack(self._take(_HEADER.size))
        if mark != _MARK:
            raise ProtocolError(f"{self._peer} speaks something else than this protocol: is the address right?")
        if length > MAX_TEXT_BYTES or tensor_bytes > MAX_TENSOR_BYTES:
            raise ProtocolError(f"{self._peer} sent an oversized control frame")
        text, blob = self._take(length), self._take(tensor_bytes)
        try:
            value = _with_tensors(json.loads(text), safetensors.torch.load(blob) if blob else {})
        except (ValueError, KeyError, RecursionError, safetensors.SafetensorError):
            raise ProtocolError(f"{self._peer} sent a malformed control frame") from None
        if isinstance(value, dict) and set(value) == {"error"}:
            raise ProtocolError(str(value["error"]))
        return value

    def _take(self, count: int) -> bytes:
        parts = bytearray()
        while len(parts) < count:
            try:
                part = self.sock.recv(min(count - len(parts), 1 << 20))
            except TimeoutError:
                raise PeerLostError(f"{self._peer} stayed silent for {self._timeout_s:g} s: is it busy?") from None
            except OSError:
                part = b""
            if not part:
                raise PeerLostError(f"{self._peer} closed the connection")
            parts += part
        return bytes(parts)


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


def _with_tensors(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_with_tensors(item, tensors) for item in value]
    if isinstance(value, dict):
        if set(value) == {_TENSOR}:
            return tensors[value[_TENSOR]]
        return {key: _with_tensors(item, tensors) for key, item in value.items()}
    return value
