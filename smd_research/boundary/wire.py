"""The wire format: length-prefixed binary frames with a version byte; nothing is ever unpickled.

A frame is a 16-byte header (magic, version, kind, message type, sequence number, body length) and a body: the
message's fields in declaration order, an integer as int64, a tensor as dtype code, rank, dimensions and raw bytes in
little-endian row-major order.
"""

import struct
from dataclasses import dataclass, fields
from enum import IntEnum
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor

from smd_research.boundary.messages import MESSAGES, Message
from smd_research.core.errors import ProtocolError

MAGIC = 0x534D
VERSION = 2
HEADER = struct.Struct("<HBBHHII")
MAX_FRAME_BYTES = 256 * 2**20
MAX_RANK = 6

_DTYPES = (
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.float64,
    torch.int32,
    torch.int64,
    torch.uint8,
    torch.int16,
    torch.bool,
    torch.int8,
)
_CODES = {dtype: code for code, dtype in enumerate(_DTYPES)}
_BFLOAT16 = _CODES[torch.bfloat16]
_INTEGER = struct.Struct("<q")
_TENSOR = struct.Struct("<BB")
_SHAPES = [struct.Struct(f"<{rank}I") for rank in range(MAX_RANK + 1)]
_TYPE_NUMBERS = {kind: number for number, kind in enumerate(MESSAGES)}


class FrameKind(IntEnum):
    """What a frame is for."""

    NOTIFY = 0
    REQUEST = 1
    REPLY = 2
    FAILURE = 3


class Header(NamedTuple):
    """A decoded frame header."""

    kind: FrameKind
    type: int
    sequence: int
    length: int


@dataclass(frozen=True)
class _Layout:
    names: tuple[str, ...]
    tensors: tuple[bool, ...]


def _layout(kind: type[Message]) -> _Layout:
    declared = fields(kind)
    return _Layout(tuple(field.name for field in declared), tuple(field.type is Tensor for field in declared))


_LAYOUTS = {kind: _layout(kind) for kind in MESSAGES}


def encode(message: Message, kind: FrameKind, sequence: int = 0) -> bytes:
    """A message as one frame.

    Raises:
        ProtocolError: for a type the wire does not know, or a tensor dtype or rank it cannot carry.
    """
    try:
        number, layout = _TYPE_NUMBERS[type(message)], _LAYOUTS[type(message)]
    except KeyError:
        raise ProtocolError(f"the wire has no type number for {type(message).__name__}: add it to MESSAGES") from None
    parts: list[bytes | memoryview] = [b""]
    for name, is_tensor in zip(layout.names, layout.tensors, strict=True):
        value = getattr(message, name)
        if is_tensor:
            parts.extend(_encode_tensor(value))
        else:
            parts.append(_INTEGER.pack(value))
    length = sum(memoryview(part).nbytes for part in parts)
    if length > MAX_FRAME_BYTES:
        raise ProtocolError(f"frame of {length} bytes is over the limit of {MAX_FRAME_BYTES}: send fewer rows")
    parts[0] = HEADER.pack(MAGIC, VERSION, kind, number, 0, sequence, length)
    return b"".join(parts)


def _encode_tensor(tensor: Tensor) -> tuple[bytes, bytes | memoryview]:
    code = _CODES.get(tensor.dtype)
    if code is None or tensor.dim() > MAX_RANK:
        raise ProtocolError(f"the wire cannot carry a tensor of {tensor.dtype} with {tensor.dim()} dimensions")
    flat = tensor.detach().cpu().contiguous()
    # numpy has no bfloat16: its bits travel as int16
    raw: Any = flat.view(torch.int16).numpy() if code == _BFLOAT16 else flat.numpy()
    return _TENSOR.pack(code, flat.dim()) + _SHAPES[flat.dim()].pack(*flat.shape), raw.data if raw.size else b""


def encode_failure(reason: str, sequence: int) -> bytes:
    """A frame that tells the peer its request failed, with one line of reason."""
    body = reason.encode()[:1000]
    return HEADER.pack(MAGIC, VERSION, FrameKind.FAILURE, 0, 0, sequence, len(body)) + body


def decode_header(data: bytes | bytearray | memoryview, limit: int = MAX_FRAME_BYTES) -> Header:
    """Read a frame header.

    Raises:
        ProtocolError: for a wrong magic, an unknown version or kind, or a body over ``limit`` bytes.
    """
    magic, version, kind, number, _, sequence, length = HEADER.unpack_from(data)
    if magic != MAGIC:
        raise ProtocolError("malformed frame: wrong magic number; is the peer speaking this protocol?")
    if version != VERSION:
        raise ProtocolError(f"frame of version {version}, this side speaks {VERSION}: install the same release on both")
    if kind > FrameKind.FAILURE:
        raise ProtocolError(f"malformed frame: unknown kind {kind}")
    if length > limit:
        raise ProtocolError(f"oversized frame: {length} bytes, the limit is {limit}")
    return Header(FrameKind(kind), number, sequence, length)


def decode(number: int, body: bytearray | memoryview) -> Message:
    """The message in a frame body; tensors alias ``body``, which the caller must not reuse.

    Raises:
        ProtocolError: for an unknown type, a cut or overlong body, an unknown dtype or a shape that does not fit.
    """
    if number >= len(MESSAGES):
        raise ProtocolError(f"malformed frame: unknown message type {number}")
    kind = MESSAGES[number]
    layout = _LAYOUTS[kind]
    values: list[Tensor | int] = []
    offset = 0
    try:
        for is_tensor in layout.tensors:
            if is_tensor:
                tensor, offset = _decode_tensor(body, offset)
                values.append(tensor)
            else:
                values.append(_INTEGER.unpack_from(body, offset)[0])
                offset += _INTEGER.size
    except struct.error:
        raise ProtocolError(f"malformed frame: {kind.__name__} ends before its fields do") from None
    if offset != len(body):
        raise ProtocolError(f"malformed frame: {kind.__name__} has {len(body) - offset} bytes too many")
    return kind(*values)


def _decode_tensor(body: bytearray | memoryview, offset: int) -> tuple[Tensor, int]:
    code, rank = _TENSOR.unpack_from(body, offset)
    if code >= len(_DTYPES) or rank > MAX_RANK:
        raise ProtocolError("malformed frame: unknown tensor dtype or rank")
    offset += _TENSOR.size
    shape = _SHAPES[rank].unpack_from(body, offset)
    offset += _SHAPES[rank].size
    dtype = _DTYPES[code]
    count = prod(shape)
    end = offset + count * dtype.itemsize
    if end > len(body):
        raise ProtocolError("malformed frame: a tensor is longer than the frame")
    if count == 0:
        return torch.empty(shape, dtype=dtype), end
    return torch.frombuffer(body, dtype=dtype, count=count, offset=offset).view(shape), end
