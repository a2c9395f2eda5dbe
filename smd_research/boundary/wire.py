"""The wire format: length-prefixed binary frames with a version byte; nothing is ever unpickled.

A frame is a 16-byte header (magic, version, kind, message type, sequence number, body length) and a body: the
message's fields in declaration order, an integer as int64, a tensor as dtype code, rank, dimensions and raw bytes in
little-endian row-major order.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, fields
from enum import IntEnum
from functools import lru_cache
from math import prod
from typing import Any, NamedTuple, get_args

import torch
from torch import Tensor

from smd_research.boundary.messages import MAX_TENSOR_BYTES, MESSAGES, Carries, Message
from smd_research.core.errors import ProtocolError

MAGIC = 0x534D
VERSION = 2
HEADER = struct.Struct("<HBBHHII")
MAX_FRAME_BYTES = MAX_TENSOR_BYTES
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
_INTEGER = struct.Struct("<q")
_TENSOR = struct.Struct("<BB")
_SHAPES = [struct.Struct(f"<{rank}I") for rank in range(MAX_RANK + 1)]
_REMEMBERED = 1024
"""Kinds of tensors whose description is kept; a peer who makes up others loses the time, and no memory is lost."""
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


_KINDS = tuple(FrameKind)


@dataclass(frozen=True, eq=False)
class _Field:
    """A field of a message: an integer, or a tensor with what it carries."""

    kind: type[Message]
    name: str
    carries: Carries | None

    def check(self, dtype: torch.dtype, shape: Sequence[int]) -> None:
        """Hold a tensor against the declaration: the one place where this is done, whichever way a message goes.

        Raises:
            ProtocolError: saying what does not fit.
        """
        assert self.carries is not None
        if (objection := self.carries.objection(dtype, shape)) is not None:
            raise ProtocolError(f"malformed message: {self.kind.__name__}.{self.name} {objection}")


def _layout(kind: type[Message]) -> tuple[_Field, ...]:
    found = []
    for field in fields(kind):
        declared = [extra for extra in get_args(field.type) if isinstance(extra, Carries)]
        if not declared and field.type is not int:
            raise TypeError(
                f"{kind.__name__}.{field.name} is neither an integer nor a tensor that says what it carries"
            )
        found.append(_Field(kind, field.name, declared[0] if declared else None))
    return tuple(found)


_LAYOUTS = {kind: _layout(kind) for kind in MESSAGES}


def encode(message: Message, kind: FrameKind, sequence: int = 0) -> bytes:
    """A message as one frame.

    Raises:
        ProtocolError: for a type the wire does not know, or a field that does not hold what it is declared to carry.
    """
    layout = _layout_of(message)
    parts: list[bytes | memoryview] = [b""]
    length = 0
    for field in layout:
        value = getattr(message, field.name)
        if field.carries:
            head = _head(field, value.dtype, value.shape)
            parts += head, _raw(value)
            length += len(head) + value.nbytes
        else:
            parts.append(_encode_integer(value))
            length += _INTEGER.size
    parts[0] = HEADER.pack(MAGIC, VERSION, kind, _TYPE_NUMBERS[type(message)], 0, sequence, _within(length))
    return b"".join(parts)


def _layout_of(message: Message) -> tuple[_Field, ...]:
    try:
        return _LAYOUTS[type(message)]
    except KeyError:
        raise ProtocolError(f"the wire has no type number for {type(message).__name__}: add it to MESSAGES") from None


def _within(length: int) -> int:
    if length > MAX_FRAME_BYTES:
        raise ProtocolError(f"frame of {length} bytes is over the limit of {MAX_FRAME_BYTES}: send fewer rows")
    return length


def _encode_integer(value: int) -> bytes:
    try:
        return _INTEGER.pack(value)
    except struct.error:
        raise ProtocolError("the wire carries integers of 64 bits") from None


def crossed(message: Message) -> tuple[Message, int]:
    """A message as it comes out of its frame, sharing nothing with what went in, and the bytes of that frame.

    Raises:
        ProtocolError: as ``encode`` does.
    """
    values: list[Tensor | int] = []
    length = 0
    for field in _layout_of(message):
        value = getattr(message, field.name)
        if field.carries:
            length += len(_head(field, value.dtype, value.shape)) + value.nbytes
            values.append(value.detach().clone(memory_format=torch.contiguous_format).cpu())
        else:
            packed = _encode_integer(value)
            length += len(packed)
            values.append(_INTEGER.unpack(packed)[0])
    return type(message)(*values), HEADER.size + _within(length)


@lru_cache(maxsize=_REMEMBERED)
def _head(field: _Field, dtype: torch.dtype, shape: torch.Size) -> bytes:
    """What stands before a tensor's bytes; remembered, for the tensors of every step are alike."""
    field.check(dtype, shape)
    return _TENSOR.pack(_CODES[dtype], len(shape)) + _SHAPES[len(shape)].pack(*shape)


def _raw(tensor: Tensor) -> bytes | memoryview:
    flat = tensor.detach().cpu().contiguous()
    # numpy has no bfloat16: its bits travel as int16
    raw: Any = flat.view(torch.int16).numpy() if flat.dtype == torch.bfloat16 else flat.numpy()
    return raw.data if raw.size else b""


def encode_failure(reason: str, sequence: int) -> bytes:
    """A frame that tells the peer its request failed, with one line of reason."""
    body = reason.encode(errors="backslashreplace")[:1000]
    return HEADER.pack(MAGIC, VERSION, FrameKind.FAILURE, 0, 0, sequence, len(body)) + body


def decode_header(data: bytes | bytearray | memoryview, limit: int = MAX_FRAME_BYTES) -> Header:
    """Read a frame header.

    Raises:
        ProtocolError: for a wrong magic, an unknown version or kind, or a body over ``limit`` bytes.
    """
    if len(data) < HEADER.size:
        raise ProtocolError("malformed frame: it ends inside its header")
    magic, version, kind, number, _, sequence, length = HEADER.unpack_from(data)
    if magic != MAGIC:
        raise ProtocolError("malformed frame: wrong magic number; is the peer speaking this protocol?")
    if version != VERSION:
        raise ProtocolError(f"frame of version {version}, this side speaks {VERSION}: install the same release on both")
    if kind > FrameKind.FAILURE:
        raise ProtocolError(f"malformed frame: unknown kind {kind}")
    if length > limit:
        raise ProtocolError(f"oversized frame: {length} bytes, the limit is {limit}")
    return Header(_KINDS[kind], number, sequence, length)


def decode(number: int, body: bytearray | memoryview) -> Message:
    """The message in a frame body; tensors alias ``body``, which the caller must not reuse.

    Raises:
        ProtocolError: for an unknown type, a cut or overlong body, or a tensor that is not what its field carries.
    """
    if number >= len(MESSAGES):
        raise ProtocolError(f"malformed frame: unknown message type {number}")
    kind = MESSAGES[number]
    values: list[Tensor | int] = []
    offset = 0
    try:
        for field in _LAYOUTS[kind]:
            if field.carries:
                tensor, offset = _decode_tensor(field, body, offset)
                values.append(tensor)
            else:
                values.append(_INTEGER.unpack_from(body, offset)[0])
                offset += _INTEGER.size
    except struct.error:
        raise ProtocolError(f"malformed frame: {kind.__name__} ends before its fields do") from None
    if offset != len(body):
        raise ProtocolError(f"malformed frame: {kind.__name__} has {len(body) - offset} bytes too many")
    return kind(*values)


def _decode_tensor(field: _Field, body: bytearray | memoryview, offset: int) -> tuple[Tensor, int]:
    assert field.carries
    begin = offset + _TENSOR.size + _SHAPES[field.carries.rank].size
    dtype, shape, count = _described(field, bytes(body[offset:begin]))
    end = begin + count * dtype.itemsize
    if end > len(body):
        raise ProtocolError("malformed frame: a tensor is longer than the frame")
    if count == 0:
        return torch.empty(shape, dtype=dtype), end
    return torch.frombuffer(body, dtype=dtype, count=count, offset=begin).view(shape), end


@lru_cache(maxsize=_REMEMBERED)
def _described(field: _Field, head: bytes) -> tuple[torch.dtype, tuple[int, ...], int]:
    """Dtype, shape and number of elements of a tensor, by what stands before its bytes."""
    code, rank = _TENSOR.unpack_from(head)
    if code >= len(_DTYPES) or rank > MAX_RANK:
        raise ProtocolError("malformed frame: unknown tensor dtype or rank")
    assert field.carries
    shape = _SHAPES[rank].unpack_from(head, _TENSOR.size) if rank == field.carries.rank else (0,) * rank
    field.check(_DTYPES[code], shape)
    return _DTYPES[code], shape, prod(shape)
