"""Frames survive the round trip exactly, and nothing malformed gets through."""

import contextlib
import struct
from dataclasses import fields, replace
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from smd_research.boundary import wire
from smd_research.boundary.messages import MESSAGES, Carries, Done, HiddenStates, Message, Query, Tokens
from smd_research.core.errors import ProtocolError


def _carries(kind: type[Message]) -> dict[str, Carries]:
    """What each tensor field of a message carries."""
    return {field.name: carries for field in fields(kind) for carries in get_args(field.type)[1:]}


def _random_tensor(carries: Carries, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape = torch.randint(0, 5, (carries.rank,), generator=generator).tolist()
    return torch.randn(shape, generator=generator).to(carries.dtypes[seed % len(carries.dtypes)])


def _message(kind: type[Message], seed: int) -> Message:
    carries = _carries(kind)
    values = [
        _random_tensor(carries[field.name], seed + i) if field.name in carries else seed - 2 * i
        for i, field in enumerate(fields(kind))
    ]
    return kind(*values)


@given(kind=st.sampled_from(MESSAGES), seed=st.integers(0, 10_000), sequence=st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=150)
def test_round_trip_is_exact(kind: type[Message], seed: int, sequence: int) -> None:
    message = _message(kind, seed)
    frame = wire.encode(message, wire.FrameKind.REQUEST, sequence)
    header = wire.decode_header(frame)
    back = wire.decode(header.type, bytearray(frame[wire.HEADER.size :]))
    assert (header.kind, header.sequence) == (wire.FrameKind.REQUEST, sequence)
    assert type(back) is kind
    for field in fields(kind):
        sent, got = getattr(message, field.name), getattr(back, field.name)
        if isinstance(sent, torch.Tensor):
            assert sent.dtype == got.dtype
            assert sent.shape == got.shape
            same = sent.contiguous().view(-1).view(torch.uint8) if sent.numel() else sent
            other = got.contiguous().view(-1).view(torch.uint8) if got.numel() else got
            assert torch.equal(same, other)
        else:
            assert sent == got


@given(kind=st.sampled_from(MESSAGES), seed=st.integers(0, 10_000))
@settings(deadline=None, max_examples=80)
def test_without_a_frame_a_message_crosses_just_so(kind: type[Message], seed: int) -> None:
    message = _message(kind, seed)
    frame = wire.encode(message, wire.FrameKind.NOTIFY)
    copy, length = wire.crossed(message)
    assert length == len(frame)
    assert wire.encode(copy, wire.FrameKind.NOTIFY) == frame
    sent = {value.data_ptr() for value in vars(message).values() if isinstance(value, torch.Tensor) and value.numel()}
    got = {value.data_ptr() for value in vars(copy).values() if isinstance(value, torch.Tensor) and value.numel()}
    assert not sent & got


@pytest.mark.parametrize("number", [np.int64(3), torch.tensor(3), True])
def test_without_a_frame_integers_cross_as_plain_ones(number: object) -> None:
    """A tensor that stands for an integer would be shared, and arithmetic on a numpy one differs."""
    message = replace(Query(torch.zeros(1, 2, 4), 0, 0, 3), layer=number)
    copy, _ = wire.crossed(message)
    assert isinstance(copy, Query)
    assert type(copy.layer) is int
    assert copy.layer == int(number)  # type: ignore[call-overload]


def test_without_a_frame_what_is_no_message_is_refused_too() -> None:
    for odd in (Tokens(torch.zeros(2)), replace(Query(torch.zeros(1, 2, 4), 0, 0, 3), position=2**70)):
        with pytest.raises(ProtocolError):
            wire.crossed(odd)


@given(data=st.binary(max_size=200))
@settings(deadline=None, max_examples=200)
def test_garbage_never_decodes_to_anything_but_a_protocol_error(data: bytes) -> None:
    for number in range(len(MESSAGES) + 2):
        with contextlib.suppress(ProtocolError):
            wire.decode(number, bytearray(data))


def _frame() -> bytearray:
    return bytearray(wire.encode(Query(torch.zeros(1, 2, 4), 0, 0, 3), wire.FrameKind.REQUEST, 1))


@pytest.mark.parametrize(
    ("offset", "value", "says"),
    [(0, b"XX", "magic"), (2, b"\x09", "version 9"), (3, b"\x07", "kind 7"), (4, b"\xff\x00", "message type")],
)
def test_a_broken_header_is_refused(offset: int, value: bytes, says: str) -> None:
    frame = _frame()
    frame[offset : offset + len(value)] = value
    with pytest.raises(ProtocolError, match=says):
        wire.decode(wire.decode_header(frame).type, frame[wire.HEADER.size :])


def test_an_oversized_frame_is_refused_before_it_is_read() -> None:
    frame = _frame()
    struct.pack_into("<I", frame, 12, 2**31)
    with pytest.raises(ProtocolError, match="oversized"):
        wire.decode_header(frame)


@pytest.mark.parametrize("cut", [1, 9, 30])
def test_a_cut_body_is_refused(cut: int) -> None:
    frame = _frame()
    with pytest.raises(ProtocolError, match="malformed"):
        wire.decode(wire.decode_header(frame).type, frame[wire.HEADER.size : -cut])


def test_trailing_bytes_are_refused() -> None:
    frame = _frame() + b"\0\0\0"
    with pytest.raises(ProtocolError, match="3 bytes too many"):
        wire.decode(wire.decode_header(frame).type, frame[wire.HEADER.size :])


@pytest.mark.parametrize("kind", MESSAGES)
@pytest.mark.parametrize("dtype", [torch.bool, torch.float64, torch.uint8, torch.complex64])
def test_a_field_carries_the_dtype_and_rank_it_is_declared_with_and_no_other(
    kind: type[Message], dtype: torch.dtype
) -> None:
    message = _message(kind, 1)
    for name, carries in _carries(kind).items():
        for odd in (torch.zeros([1] * carries.rank, dtype=dtype), getattr(message, name).unsqueeze(0)):
            with pytest.raises(ProtocolError, match=rf"{kind.__name__}\.{name} is"):
                wire.encode(replace(message, **{name: odd}), wire.FrameKind.NOTIFY)


def _tensor_field(code: int, *shape: int) -> bytes:
    return struct.pack(f"<BB{len(shape)}I", code, len(shape), *shape)


@pytest.mark.parametrize(
    "body",
    [
        _tensor_field(0, 0, 2**32 - 1, 2**32 - 1) + bytes(24),
        _tensor_field(0, 2**31, 0, 2**20) + bytes(24),
        _tensor_field(8, 1, 1, 1) + b"\7" + bytes(24),
        _tensor_field(3, 1, 1, 1) + bytes(8 + 24),
        _tensor_field(0) + bytes(4 + 24),
    ],
    ids=["empty and huge", "huge and empty", "bool", "float64", "scalar"],
)
def test_a_frame_that_declares_something_else_is_refused_before_a_tensor_is_made(body: bytes) -> None:
    with pytest.raises(ProtocolError, match=r"malformed message: Query\.q is"):
        wire.decode(MESSAGES.index(Query), bytearray(body))


def test_an_integer_beyond_the_wire_is_refused() -> None:
    with pytest.raises(ProtocolError, match="64 bits"):
        wire.encode(HiddenStates(torch.zeros(1, 1), 2**63), wire.FrameKind.NOTIFY)


@pytest.mark.parametrize("cut", range(16))
def test_a_header_cut_short_is_refused(cut: int) -> None:
    with pytest.raises(ProtocolError, match="malformed"):
        wire.decode_header(_frame()[:cut])


def test_payload_counts_tensors_only() -> None:
    assert HiddenStates(torch.zeros(3, 4), 7).nbytes == 48
    assert Done().nbytes == 0


def test_a_message_never_shows_its_values() -> None:
    assert "4242" not in repr(Tokens(torch.tensor([4242])))
