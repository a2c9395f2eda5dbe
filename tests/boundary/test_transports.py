"""The same parties behave the same over every transport; losses and refusals end in one clear line."""

import contextlib
import os
import socket
import threading
import time
from functools import partial

import pytest
import torch

from smd_research.boundary import Boundary, Channel, Party, Untrusted, wire
from smd_research.boundary.channel import InProcessChannel, Meter
from smd_research.boundary.ledger import Direction, Ledger
from smd_research.boundary.messages import Done, Message, PromptIds, Query, Tokens
from smd_research.boundary.session import TRANSPORTS
from smd_research.boundary.stream import DEEPEST, StreamChannel
from smd_research.core.clock import Clock
from smd_research.core.errors import ConfigError, PeerLostError, ProtocolError


class Doubler(Untrusted):
    """Asks the trusted side to double each number it was given, then streams the results."""

    def __init__(self, fail: bool, channel: Channel) -> None:
        super().__init__()
        self.channel = channel
        self.fail = fail

    def handle(self, message: Message) -> Message | None:
        assert isinstance(message, PromptIds)
        if self.fail:
            raise ProtocolError("the doubler is out of order")
        for number in message.ids.tolist():
            answer = self.channel.request(Query(torch.full((1, 1, 2), float(number)), 0, 0, 0))
            assert isinstance(answer, Tokens)
            self.channel.notify(Tokens(answer.ids))
        return Done()

    def memory(self) -> dict[str, int]:
        return {"pid": os.getpid()}


class Vanishing(Untrusted):
    """Ends its process in the middle of a request."""

    def __init__(self, channel: Channel) -> None:
        super().__init__()

    def handle(self, message: Message) -> Message | None:
        os._exit(3)


class Home(Party):
    def __init__(self) -> None:
        self.got: list[int] = []

    def handle(self, message: Message) -> Message | None:
        if isinstance(message, Query):
            return Tokens((2 * message.q[0, 0, :1]).to(torch.int32))
        assert isinstance(message, Tokens)
        self.got += message.ids.tolist()
        return None


def _run(transport: str) -> tuple[list[int], Ledger, int, bytes]:
    home, boundary = Home(), Boundary(transport)
    channel = boundary.open(home, partial(Doubler, False))
    try:
        boundary.begin()
        channel.request(PromptIds(torch.tensor([3, 5, 8], dtype=torch.int32), 1))
        pid = boundary.tap("memory")["pid"]
        return home.got, boundary.ledger, pid, boundary.received_by_untrusted()
    finally:
        boundary.close()


APART = [name for name in TRANSPORTS if name != "inproc"]


@pytest.mark.parametrize("transport", APART)
def test_transports_carry_and_count_alike(transport: str) -> None:
    (got, ledger, here, bytes_in), (got2, ledger2, there, bytes_out) = _run("inproc"), _run(transport)
    assert got == got2 == [6, 10, 16]
    assert (here == os.getpid(), there != os.getpid()) == (True, True)
    ledger2.waited_s = ledger.waited_s = 0.0
    assert ledger == ledger2
    assert ledger.messages == 2 + 3 * 3
    assert ledger.rounds == 4
    assert (ledger.bytes_to_untrusted, ledger.bytes_to_trusted) == (12 + 3 * 4, 3 * 8 + 3 * 4)
    # sequence numbers aside, the untrusted side received the same bytes
    assert len(bytes_in) == len(bytes_out)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_refusal_reaches_the_asking_side_as_one_line(transport: str) -> None:
    boundary = Boundary(transport)
    channel = boundary.open(Home(), partial(Doubler, True))
    with pytest.raises(ProtocolError, match="out of order"):
        channel.request(PromptIds(torch.tensor([1], dtype=torch.int32), 1))
    boundary.close()


@pytest.mark.parametrize("transport", APART)
def test_a_peer_that_dies_in_the_middle_is_noticed(transport: str) -> None:
    boundary = Boundary(transport)
    channel = boundary.open(Home(), Vanishing)
    with pytest.raises(PeerLostError, match="disconnected"):
        channel.request(PromptIds(torch.tensor([1], dtype=torch.int32), 1))
    with pytest.raises(PeerLostError):
        boundary.tap("memory")
    boundary.close()


def test_a_silent_peer_runs_into_the_time_limit() -> None:
    ours, theirs = socket.socketpair()
    channel = StreamChannel(ours, timeout_s=0.1)
    with pytest.raises(PeerLostError, match=r"silent for 0\.1 s"):
        channel.request(Done())
    theirs.close()
    channel.close()


class Dribbling(Clock):
    """A clock on which a second passes, and a byte arrives, whenever somebody asks how long to wait."""

    def __init__(self, sock: socket.socket, data: bytes) -> None:
        self.time = 0.0
        self._sock = sock
        self._data = iter(data)

    def now(self) -> float:
        return self.time

    def until(self, deadline: float) -> float:
        self.time += 1
        if (byte := next(self._data, None)) is not None:
            self._sock.send(bytes([byte]))
        return min(super().until(deadline), 0.02)


def test_a_byte_a_second_is_no_sign_of_life() -> None:
    """One deadline for the whole frame, however often something comes."""
    ours, theirs = socket.socketpair()
    frame = wire.encode(PromptIds(torch.zeros(500, dtype=torch.int32), 1), wire.FrameKind.REPLY, 1)
    clock = Dribbling(theirs, frame)
    channel = StreamChannel(ours, timeout_s=60, clock=clock)
    with pytest.raises(PeerLostError, match="did not finish a message within 60 s"):
        channel.request(Done())
    assert clock.time <= 63
    theirs.close()
    channel.close()


def test_a_frame_that_is_slow_but_in_time_arrives_whole() -> None:
    ours, theirs = socket.socketpair()
    frame = wire.encode(Tokens(torch.tensor([5, 6], dtype=torch.int32)), wire.FrameKind.REPLY, 1)
    channel = StreamChannel(ours, timeout_s=60, clock=Dribbling(theirs, frame))
    answer = channel.request(Done())
    assert isinstance(answer, Tokens)
    assert answer.ids.tolist() == [5, 6]
    theirs.close()
    channel.close()


def test_a_peer_that_takes_nothing_runs_into_the_time_limit() -> None:
    ours, theirs = socket.socketpair()
    channel = StreamChannel(ours, timeout_s=60, clock=Dribbling(theirs, b""))
    with pytest.raises(PeerLostError, match="took no data for 60 s"):
        channel.request(PromptIds(torch.zeros(2_000_000, dtype=torch.int32), 1))
    theirs.close()
    channel.close()


def test_a_channel_that_queues_waits_for_nobody() -> None:
    ours, theirs = socket.socketpair()
    clock = Dribbling(theirs, b"")
    near, far = StreamChannel(ours, timeout_s=60, queues=True, clock=clock), StreamChannel(theirs)
    sent = Tokens(torch.arange(1_000_000, dtype=torch.int32))
    near.notify(sent)
    assert near.unsent
    assert not near.overdue
    assert not far.arrived()
    while near.unsent:
        near.flush()
        far.arrived()
    assert torch.equal(far.receive()[1].ids, sent.ids)  # type: ignore[attr-defined]
    near.notify(sent)
    clock.time += 100
    assert near.overdue
    near.close()
    far.close()


def test_what_a_peer_gives_as_its_reason_is_shown_escaped_and_cut() -> None:
    ours, theirs = socket.socketpair()
    channel = StreamChannel(ours, timeout_s=1)
    theirs.sendall(wire.encode_failure("\x1b[2J\u202e\n" + 2000 * "x", 1))
    with pytest.raises(ProtocolError, match=r"refused: \\x1b\[2J\\u202e\\nxxx") as raised:
        channel.request(Done())
    assert len(str(raised.value)) < 600
    theirs.close()
    channel.close()


def test_requests_within_requests_have_an_end() -> None:
    ours, theirs = socket.socketpair()
    channel = StreamChannel(ours, timeout_s=5)

    depths = [0]

    class Asking(Party):
        def handle(self, message: Message) -> Message | None:
            depths.append(depths[-1] + 1)
            try:
                return channel.request(Done())
            finally:
                depths.append(depths[-1] - 1)

    channel.serve_for(Asking())
    theirs.sendall(b"".join(wire.encode(Done(), wire.FrameKind.REQUEST, n) for n in range(100)))
    theirs.shutdown(socket.SHUT_WR)
    with contextlib.suppress(PeerLostError):
        while True:
            channel.serve_one()
    assert max(depths) == DEEPEST
    theirs.close()
    channel.close()


@pytest.mark.parametrize(
    ("data", "says"),
    [(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "magic"), (b"MS\x02\x02\0\0\0\0\0\0\0\0\xff\xff\xff\x7f", "oversized")],
)
def test_a_stranger_on_the_line_is_refused(data: bytes, says: str) -> None:
    ours, theirs = socket.socketpair()
    channel = StreamChannel(ours, timeout_s=1)
    theirs.sendall(data)
    with pytest.raises(ProtocolError, match=says):
        channel.request(Done())
    theirs.close()
    channel.close()


def test_a_message_larger_than_every_buffer_arrives_whole() -> None:
    ours, theirs = socket.socketpair()
    near, far = StreamChannel(ours), StreamChannel(theirs)
    sent = PromptIds(torch.arange(1_000_000, dtype=torch.int32), 7)

    class Echo(Party):
        def handle(self, message: Message) -> Message | None:
            assert isinstance(message, PromptIds)
            return Tokens(message.ids)

    far.serve_for(Echo())
    server = threading.Thread(target=far.serve_one)
    server.start()
    answer = near.request(sent)
    server.join()
    assert isinstance(answer, Tokens)
    assert torch.equal(answer.ids, sent.ids)
    near.close()
    far.close()


def test_an_unknown_transport_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="inproc, process, tcp"):
        Boundary("pigeon")


def test_without_a_recorder_there_is_no_view() -> None:
    boundary = Boundary("inproc", record=False)
    boundary.open(Home(), partial(Doubler, False)).request(PromptIds(torch.tensor([1], dtype=torch.int32), 1))
    with pytest.raises(ProtocolError, match="does not record"):
        boundary.view(frozenset())


def test_a_view_holds_the_messages_in_order_and_spills_to_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smd_research.boundary.recorder.SPILL_BYTES", 100)
    boundary = Boundary("inproc")
    channel = boundary.open(Home(), partial(Doubler, False))
    boundary.begin()
    channel.request(PromptIds(torch.tensor([3, 5], dtype=torch.int32), 1))
    view = boundary.view(frozenset())
    kinds = [(direction, type(message).__name__) for direction, message in view.messages]
    up, down = Direction.TO_UNTRUSTED, Direction.TO_TRUSTED
    once = [(down, "Query"), (up, "Tokens"), (down, "Tokens")]
    assert kinds == [(up, "PromptIds"), *once, *once, (down, "Done")]
    assert [int(m.ids[0]) for m in view.of(Tokens)] == [6, 6, 10, 10]


def test_a_process_starts_in_well_under_the_time_of_an_interpreter() -> None:
    boundary = Boundary("process")
    boundary.open(Home(), partial(Doubler, False))
    boundary.close()
    began = time.perf_counter()
    second = Boundary("process")
    second.open(Home(), partial(Doubler, False))
    assert time.perf_counter() - began < 5
    second.close()


def test_the_tap_keeps_what_was_forced_and_no_more() -> None:
    party = Vanishing(InProcessChannel(Meter(record=False), Direction.TO_TRUSTED))
    party.keep(torch.ones(4))
    assert party.tapped() == []
    party.arm([1, 2])
    for _ in range(2):
        party.keep(torch.ones(4))
    with pytest.raises(ProtocolError, match="has ended"):
        party.keep(torch.ones(4))
    assert len(party.tapped()) == 2
    party.kept_at_most = 40
    party.arm([1] * 9)
    for _ in range(2):
        party.keep(torch.ones(4))
    with pytest.raises(ProtocolError, match="keeps no more than"):
        party.keep(torch.ones(4))
