"""Peers who mean harm: what they send to a service and to a listening party, drawn from a seed."""

import contextlib
import json
import random
import socket
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from smd_research.boundary import wire
from smd_research.boundary.addresses import connect
from smd_research.boundary.control import ControlStream
from smd_research.boundary.messages import (
    MESSAGES,
    Done,
    HiddenStates,
    Message,
    OutputRequest,
    PartialAttention,
    PromptIds,
    Query,
    StartDecode,
    Tokens,
)
from smd_research.boundary.stream import StreamChannel
from smd_research.core.errors import LabError

HUGE = (2**31, 2**32 - 1, 2**20)


def start_of(**changes: object) -> StartDecode:
    """A request to decode after a prompt of four tokens, changed."""
    none = torch.zeros(0, dtype=torch.int32)
    start = StartDecode(torch.tensor([7], dtype=torch.int32), none, torch.tensor([0.0, 1.0]), 1, 4, 3, 0, 0)
    return replace(start, **changes)  # type: ignore[arg-type]


def frame_of(message: Message, sequence: int = 1) -> bytearray:
    """The message as a request."""
    return bytearray(wire.encode(message, wire.FrameKind.REQUEST, sequence))


def raw(number: int, body: bytes, *, kind: int = wire.FrameKind.REQUEST, length: int | None = None) -> bytes:
    """A frame of any content."""
    head = wire.HEADER.pack(wire.MAGIC, wire.VERSION, kind, number, 0, 1, len(body) if length is None else length)
    return head + body


def mutated(frame: bytes | bytearray, dice: random.Random) -> bytes:
    """A frame with some bytes changed, cut, doubled or put in between."""
    data = bytearray(frame)
    for _ in range(dice.randint(1, 4)):
        at = dice.randrange(len(data) + 1)
        match dice.randrange(5):
            case 0 if data:
                data[at % len(data)] = dice.randrange(256)
            case 1 if data:
                data[at % len(data)] ^= 1 << dice.randrange(8)
            case 2:
                del data[at:]
            case 3:
                data[at:at] = dice.randbytes(dice.randint(1, 9))
            case _:
                data[at : at + 4] = struct.pack("<I", dice.choice([0, 1, 2**31, 2**32 - 1, 2**20, 3]))
    return bytes(data)


def odd_tensor(dice: random.Random) -> bytes:
    """A tensor field with dimensions and a type that nothing carries."""
    code = dice.randrange(12)
    shape = [dice.choice([0, 1, 2, *HUGE]) for _ in range(dice.randint(0, 6))]
    return struct.pack(f"<BB{len(shape)}I", code, len(shape), *shape) + dice.randbytes(dice.choice([0, 8, 64]))


def sample_messages() -> list[Message]:
    """A small message of each kind that a user or a provider sends."""
    some = torch.ones(1, 4, 16)
    return [
        start_of(),
        Query(some, 1, 0, 4),
        PartialAttention(torch.ones(1, 4), torch.ones(1, 4), some, 1, 0, 4),
        HiddenStates(torch.ones(2, 8), 0),
        PromptIds(torch.tensor([5, 6], dtype=torch.int32), 3),
        Tokens(torch.tensor([5], dtype=torch.int32)),
        OutputRequest(3),
        Done(),
    ]


# -- a user of the service -------------------------------------------------------------------------------------------

Visit = Callable[[str, random.Random], None]


def _say(address: str, data: bytes, listen_s: float = 0.05) -> None:
    """Connect, send, hear what comes for a moment, leave."""
    with contextlib.closing(connect(address)) as sock, contextlib.suppress(OSError):
        sock.sendall(data)
        sock.settimeout(listen_s)
        sock.recv(4096)


def says_garbage(address: str, dice: random.Random) -> None:
    _say(address, dice.randbytes(dice.randint(1, 400)))


def says_mutants(address: str, dice: random.Random) -> None:
    frame = frame_of(dice.choice(sample_messages()))
    _say(address, b"".join(mutated(frame, dice) for _ in range(dice.randint(1, 5))))


def says_odd_tensors(address: str, dice: random.Random) -> None:
    number = dice.randrange(len(MESSAGES))
    _say(address, raw(number, b"".join(odd_tensor(dice) for _ in range(4)) + bytes(64)))


def announces_too_much(address: str, dice: random.Random) -> None:
    _say(address, raw(dice.randrange(len(MESSAGES)), b"", length=dice.choice([2**20, 2**28, 2**32 - 1])))


def asks_nonsense(address: str, dice: random.Random) -> None:
    """Requests that fit the wire and make no sense."""
    ids = torch.tensor([dice.choice([-1, 0, 7, 2**30]) for _ in range(dice.randint(0, 20))], dtype=torch.int32)
    number = dice.choice([-(2**63), -1, 0, 1, 2, 2**31, 2**63 - 1])
    field = dice.choice(["first", "public", "sampling", "request", "position", "max_new_tokens", "seed", "turn"])
    law = torch.tensor([dice.choice([float("nan"), -1.0, 1e-45, float("inf"), 0.7]), dice.choice([float("nan"), 0.5])])
    value: Tensor | int = ids if field in ("first", "public") else law if field == "sampling" else number
    with contextlib.suppress(LabError):
        _say(address, bytes(frame_of(start_of(**{field: value}))))


def sends_what_nobody_asked_for(address: str, dice: random.Random) -> None:
    kind = dice.choice([wire.FrameKind.NOTIFY, wire.FrameKind.REPLY, wire.FrameKind.REQUEST])
    _say(address, wire.encode(dice.choice(sample_messages()), kind, dice.randrange(3)))


def leaves_in_the_middle(address: str, dice: random.Random) -> None:
    frame = frame_of(start_of())
    _say(address, bytes(frame[: dice.randint(1, len(frame) - 1)]), listen_s=0)


def leaves_its_request(address: str, dice: random.Random) -> None:
    """Has a request admitted and never answers a query, or with something else."""
    with contextlib.closing(StreamChannel(connect(address), timeout_s=2)) as channel, contextlib.suppress(LabError):
        channel._write(bytes(frame_of(start_of(max_new_tokens=50))))
        header, query = channel.receive()
        assert isinstance(query, Query)
        match dice.randrange(4):
            case 0:
                return
            case 1:
                channel.reply(dice.choice(sample_messages()), header.sequence)
            case 2:
                worst = torch.full(query.q.shape[:2], dice.choice([float("nan"), float("inf"), 3e38, -3e38]))
                answer = PartialAttention(worst, worst, query.q * 1e38, query.request, query.layer, query.position)
                channel.reply(answer, header.sequence)
            case _:
                good = wire.encode(
                    PartialAttention(query.q[:, :, 0], query.q[:, :, 0], query.q, 1, query.layer, query.position),
                    wire.FrameKind.REPLY,
                    header.sequence,
                )
                channel._write(mutated(good, dice))
        with contextlib.suppress(LabError):
            channel.receive()


VISITS: tuple[Visit, ...] = (
    says_garbage,
    says_mutants,
    says_odd_tensors,
    announces_too_much,
    asks_nonsense,
    sends_what_nobody_asked_for,
    leaves_in_the_middle,
    leaves_its_request,
)


# -- a guest of a listening party --------------------------------------------------------------------------------------


def _control(text: bytes, blob: bytes = b"", mark: bytes = b"SMDC") -> bytes:
    return mark + struct.pack("<II", len(text), len(blob)) + text + blob


def greets_with_garbage(address: str, card: Mapping[str, Any], dice: random.Random) -> None:
    _say(address, dice.choice([dice.randbytes(60), b"GET / HTTP/1.1\r\n\r\n", _control(dice.randbytes(40)), b""]))


def greets_oddly(address: str, card: Mapping[str, Any], dice: random.Random) -> None:
    """Greetings that are well formed and say something else than they should."""
    odd = [None, 1, -1.5, True, "x" * 300, "\x1b[2J\ud800", [], [[[]]], {}, {"tensor:": "0"}, {"a": {"b": {"c": 1}}}]
    hello: dict[str, Any] = {"wire": wire.VERSION, "card": dict(card), "tap": True}
    if dice.random() < 0.5:
        hello["card"][dice.choice([*hello["card"], "more"])] = dice.choice(odd)
    else:
        hello[dice.choice(["wire", "card", "tap", "session", "error"])] = dice.choice(odd)
    _say(address, _control(json.dumps(hello).encode()))


def greets_in_mutants(address: str, card: Mapping[str, Any], dice: random.Random) -> None:
    hello = json.dumps({"wire": wire.VERSION, "card": dict(card), "tap": True}).encode()
    _say(address, mutated(_control(hello), dice))


def greets_and_leaves(address: str, card: Mapping[str, Any], dice: random.Random) -> None:
    hello = json.dumps({"wire": wire.VERSION, "card": dict(card), "tap": True}).encode()
    _say(address, _control(hello))


@contextlib.contextmanager
def _let_in(address: str, card: Mapping[str, Any]) -> Iterator[tuple[StreamChannel, ControlStream]]:
    """A guest as it should be: the channel of its boundary, and its tap."""
    with contextlib.ExitStack() as stack:
        data = ControlStream(connect(address), "server", 10)
        stack.callback(data.close)
        data.send({"wire": wire.VERSION, "card": dict(card), "tap": True})
        tap = ControlStream(connect(address), "server", 10)
        stack.callback(tap.close)
        tap.send({"session": data.recv()["session"]})
        tap.recv()
        yield StreamChannel(data.sock, timeout_s=2), tap


def taps_what_is_not_offered(address: str, card: Mapping[str, Any], dice: random.Random) -> None:
    calls = [
        ["handle", []],
        ["__init__", [1]],
        ["_serve", []],
        ["arm", dice.choice([[], [1], [[-1]], [["x"]], [[2**70]], [[0.5]], [{}], [[1], 2]])],
        ["tapped", [1]],
        ["memory", [None]],
        ["next_token", [[1], [1]]],
        {"arm": 1},
        "\x07" * 50,
        None,
    ]
    with _let_in(address, card) as (_, tap), contextlib.suppress(LabError):
        tap.send(dice.choice(calls))
        tap.recv()


def arms_what_the_model_does_not_have(address: str, card: Mapping[str, Any], dice: random.Random) -> None:
    with _let_in(address, card) as (channel, tap), contextlib.suppress(LabError):
        tap.send(["arm", [[dice.choice([0, 2**30, 5])] * dice.randint(0, 3)]])
        tap.recv()
        channel._write(bytes(frame_of(dice.choice(sample_messages()))))
        channel.receive()


def speaks_nonsense(address: str, card: Mapping[str, Any], dice: random.Random) -> None:
    """Frames of every kind, whole or not, in any order, inside or outside a request."""
    with _let_in(address, card) as (channel, _), contextlib.suppress(LabError, OSError):
        for _ in range(dice.randint(1, 4)):
            frame = frame_of(dice.choice(sample_messages()))
            channel._write(bytes(frame) if dice.random() < 0.5 else mutated(frame, dice))
        if dice.random() < 0.3:
            channel._write(raw(dice.randrange(len(MESSAGES)), odd_tensor(dice) + bytes(64)))
        channel._sock.shutdown(socket.SHUT_WR)
        while True:
            channel.receive()


def asks_without_end(address: str, card: Mapping[str, Any], dice: random.Random) -> None:
    """States of every width and position, and tokens that nothing has, for as long as they are answered."""
    with _let_in(address, card) as (channel, tap), contextlib.suppress(LabError):
        if dice.random() < 0.5:
            tap.send(["arm", [[5] * dice.randint(0, 3)]])
            tap.recv()
        rows, width = dice.choice([0, 1, 3, 600]), dice.choice([1, 64, 64, 2**10])
        position = dice.choice([0, 0, 1, -1, 2**62])
        for turn in range(4):
            channel.request(HiddenStates(torch.ones(rows, width), position + turn * rows))
            channel.request(PromptIds(torch.tensor([dice.choice([7, -1, 2**31 - 1])], dtype=torch.int32), 2))


def asks_for_the_impossible(address: str, card: Mapping[str, Any], dice: random.Random) -> None:
    """Prompts that are too long, empty, of tokens that do not exist, or without an end."""
    length = dice.choice([0, 1, 5, 100_000])
    ids = torch.full((length,), dice.choice([-1, 7, 2**31 - 1]), dtype=torch.int32)
    new = dice.choice([-1, 0, 1, 2**62])
    with _let_in(address, card) as (channel, _), contextlib.suppress(LabError):
        channel._write(bytes(frame_of(PromptIds(ids, new))))
        channel.receive()


Call = Callable[[str, Mapping[str, Any], random.Random], None]

CALLS: tuple[Call, ...] = (
    greets_with_garbage,
    greets_oddly,
    greets_in_mutants,
    greets_and_leaves,
    taps_what_is_not_offered,
    arms_what_the_model_does_not_have,
    speaks_nonsense,
    asks_without_end,
    asks_for_the_impossible,
)
