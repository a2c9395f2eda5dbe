"""Two hosts: addresses, the greeting, the tap beside the boundary, and what happens when a side misbehaves."""

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from smd_research.boundary import Boundary, Channel, Party, Untrusted
from smd_research.boundary.addresses import Address, accept, address_of, connect, knock, listen, loopback_pair
from smd_research.boundary.control import ControlStream
from smd_research.boundary.door import Door
from smd_research.boundary.messages import Done, Message, PromptIds, Tokens
from smd_research.boundary.remote import Remote, RemoteHost
from smd_research.boundary.wire import VERSION
from smd_research.core.clock import Clock
from smd_research.core.errors import ConfigError, LabError, PeerLostError, ProtocolError, UnreachableError

CARD = {"model": "toy", "defense": {"name": "none", "parameters": {"wire_dtype": "fp32"}}}


class Adder(Untrusted):
    """Streams each number plus one; its tap keeps vectors."""

    def __init__(self, channel: Channel) -> None:
        super().__init__()
        self.channel = channel

    def handle(self, message: Message) -> Message | None:
        assert isinstance(message, PromptIds)
        if int(message.ids[0]) == 99:
            raise ProtocolError("99 is not served")
        for number in message.ids.tolist():
            self.channel.notify(Tokens(torch.tensor([number + 1], dtype=torch.int32)))
            self.logits.append(torch.full((3,), float(number), dtype=torch.bfloat16))
        return Done()

    def memory(self) -> dict[str, int]:
        return {"weights": 12, "kv": 3}

    def note(self, value: int) -> None:
        """A public method that is no call of the tap."""
        self.kept = value


class Home(Party):
    def __init__(self) -> None:
        self.got: list[int] = []

    def handle(self, message: Message) -> Message | None:
        assert isinstance(message, Tokens)
        self.got += message.ids.tolist()
        return None


class Server:
    """Serves ``count`` connections in a thread and keeps what was said about each."""

    def __init__(self, address: str = "127.0.0.1:0", count: int = 1, tap: bool = True) -> None:
        self.listener = listen(address)
        self.address = address_of(self.listener)
        self.said: list[str] = []
        self._thread = threading.Thread(target=self._run, args=(count, tap), daemon=True)
        self._thread.start()

    def _run(self, count: int, tap: bool) -> None:
        door = Door(self.listener, CARD, tap=tap)
        for _ in range(count):
            try:
                with contextlib.closing(door.welcome()) as guest:
                    guest.serve(Adder, 5)
                self.said.append("left")
            except LabError as error:
                self.said.append(str(error))

    def wait(self) -> list[str]:
        self._thread.join(10)
        assert not self._thread.is_alive()
        self.listener.close()
        return self.said


@pytest.fixture
def server() -> Iterator[Server]:
    yield (one := Server())
    one.listener.close()


def _ids(*ids: int) -> PromptIds:
    return PromptIds(torch.tensor(ids, dtype=torch.int32), 1)


@pytest.mark.parametrize("where", ["tcp", "unix"])
def test_a_party_that_listens_is_met_counted_and_tapped_like_one_at_home(where: str, tmp_path: Path) -> None:
    server = Server("127.0.0.1:0" if where == "tcp" else str(tmp_path / "provider"), count=2)
    here, there = Boundary("inproc"), Boundary("tcp", remote=Remote(server.address, CARD))
    seen: list[Any] = []
    for boundary in (here, there):
        home = Home()
        channel = boundary.open(home, Adder)
        boundary.begin()
        boundary.tap("arm", [1, 2])
        channel.request(_ids(4, 5))
        ledger = boundary.ledger
        ledger.waited_s = 0.0
        kept = boundary.tap("tapped")
        assert [vector.dtype for vector in kept] == [torch.bfloat16] * 2
        seen.append((home.got, ledger, [vector.tolist() for vector in kept], boundary.tap("memory")))
        assert len(boundary.pids) == 1
        boundary.close()
    assert seen[0] == seen[1]
    assert seen[0][0] == [5, 6]
    again = Boundary("tcp", remote=Remote(server.address, CARD))
    again.open(Home(), Adder).request(_ids(1))
    again.close()
    assert server.wait() == ["left", "left"]


def test_a_refusal_crosses_and_the_connection_goes_on(server: Server) -> None:
    boundary = Boundary("tcp", remote=Remote(server.address, CARD))
    home = Home()
    channel = boundary.open(home, Adder)
    with pytest.raises(ProtocolError, match="99 is not served"):
        channel.request(_ids(99))
    channel.request(_ids(1))
    assert home.got == [2]
    boundary.close()
    assert server.wait() == ["left"]


@pytest.mark.parametrize(
    ("card", "says"),
    [
        ({**CARD, "model": "other"}, "model=other asked, toy served: start both sides with the same words"),
        (
            {**CARD, "defense": {"name": "none", "parameters": {"wire_dtype": "fp16"}}},
            "defense.parameters.wire_dtype=fp16 asked, fp32 served",
        ),
        ({**CARD, "seed": 3}, "seed=3 asked, nothing served"),
        ({"model": "toy"}, "defense.name=nothing asked, none served"),
    ],
)
def test_what_does_not_agree_is_named_on_both_sides(server: Server, card: dict[str, Any], says: str) -> None:
    boundary = Boundary("tcp", remote=Remote(server.address, card))
    with pytest.raises(ConfigError) as refused:
        boundary.open(Home(), Adder)
    assert f"{server.address} refused: " in str(refused.value)
    assert says in str(refused.value)
    (said,) = server.wait()
    assert says in said
    assert "\n" not in said


def test_another_release_is_refused(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with contextlib.closing(ControlStream(connect(server.address), "server", 5)) as stream:
        stream.send({"wire": VERSION + 1, "card": CARD, "tap": True})
        assert "install the same release on both sides" in stream.recv()["refused"]
    assert f"wire version {VERSION + 1} asked, {VERSION} served" in server.wait()[0]


def test_a_server_without_a_tap_says_so_and_serves_who_does_not_ask_for_it() -> None:
    server = Server(count=2, tap=False)
    with pytest.raises(ConfigError, match="tap=true"):
        Boundary("tcp", remote=Remote(server.address, CARD)).open(Home(), Adder)
    boundary, home = Boundary("tcp", remote=Remote(server.address, CARD, tap=False)), Home()
    boundary.open(home, Adder).request(_ids(7))
    assert home.got == [8]
    with pytest.raises(ProtocolError, match="without the measurement tap"):
        boundary.tap("memory")
    boundary.close()
    assert server.wait()[1] == "left"


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (["handle"], "has no 'handle'"),
        (["_secret"], "has no '_secret'"),
        (["__init__"], "has no '__init__'"),
        (["channel"], "has no 'channel'"),
        (["note", 1], "has no 'note'"),
        (["\x1b[2J\u202e" + 100 * "n"], r"has no '\\x1b\[2J\\u202en*\.\.\.'"),
        (["memory", 1], "with these arguments"),
        (["tapped", None], "with these arguments"),
        (["arm"], "with these arguments"),
        (["arm", "text"], "with these arguments"),
        (["arm", [1, -1]], "with these arguments"),
        (["arm", [True]], "with these arguments"),
        (["arm", [1.5]], "with these arguments"),
        (["arm", 2**17 * [0]], "with these arguments"),
    ],
)
def test_the_tap_offers_three_calls_with_their_arguments_and_no_more(
    server: Server, call: list[Any], says: str
) -> None:
    boundary = Boundary("tcp", remote=Remote(server.address, CARD))
    boundary.open(Home(), Adder)
    with pytest.raises(ProtocolError, match=f"the measurement tap .*{says}"):
        boundary.tap(*call)
    boundary.close()
    said = server.wait()[0]
    assert "the measurement tap" in said
    assert said.isprintable()


@pytest.mark.parametrize(
    "text",
    [
        b"[" * 20_000,
        b'{"card":' + b'{"a":' * 900 + b"1" + b"}" * 901,
        b'{"tensor:": [1]}',
        b'{"tensor:": "0"}',
        b'{"wire": "\\u001b[31m\\ud800", "card": {}, "tap": 1}',
        b'{"error": "\\u001b]0;title\\u0007"}',
        b'{"wire": 2, "card": {"\\u001b[1mmodel": "\\n\\nforged line"}, "tap": 1}',
        b'{"session": ["x"]}',
        b"1" * 5000,
    ],
)
def test_whatever_a_greeting_says_is_refused_and_printed_escaped(text: bytes) -> None:
    server = Server(count=1)
    with contextlib.closing(connect(server.address)) as stranger:
        stranger.sendall(b"SMDC" + len(text).to_bytes(4, "little") + bytes(4) + text)
        if b"session" in text:  # told that nobody waits for it, and forgotten
            assert b"busy" in stranger.recv(200)
    boundary, home = Boundary("tcp", remote=Remote(server.address, CARD)), Home()
    if b"session" in text:
        boundary.open(home, Adder).request(_ids(1))
        boundary.close()
    (said,) = server.wait()
    assert said.isascii()
    assert said.isprintable()
    assert len(said) < 600


class Ticking(Clock):
    """A clock on which a second passes whenever somebody asks how long to wait."""

    def __init__(self) -> None:
        self.time = 0.0

    def now(self) -> float:
        return self.time

    def until(self, deadline: float) -> float:
        self.time += 1
        return min(super().until(deadline), 0.02)


def test_slow_greetings_end_at_their_deadline_and_keep_nobody_waiting() -> None:
    """One caller sends a byte a second, one sends nothing, one never opens its second connection."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(contextlib.closing(listen("127.0.0.1:0")))
        door = Door(listener, CARD, tap=True, clock=Ticking())
        callers = [stack.enter_context(contextlib.closing(connect(address_of(listener)))) for _ in range(3)]
        ControlStream(callers[0], "server", 5).send({"wire": VERSION, "card": CARD, "tap": True})
        greeting = iter(b"SMDC" + (1000).to_bytes(4, "little") + bytes(1000))
        refusals = []
        honest = threading.Thread(target=lambda: stack.push(_visit(address_of(listener))))
        while len(refusals) < 3:
            with contextlib.suppress(OSError):
                callers[1].send(bytes([next(greeting)]))
            try:
                door.welcome()
            except PeerLostError as error:
                refusals.append(str(error))
        honest.start()
        with contextlib.closing(door.welcome()) as guest:
            assert guest.tap
        honest.join()
    assert all("did not finish its greeting within 10 s" in line for line in refusals)


def _visit(address: str) -> contextlib.AbstractContextManager[None]:
    boundary = Boundary("tcp", remote=Remote(address, CARD))
    boundary.open(Home(), Adder)
    return contextlib.closing(boundary)  # type: ignore[return-value]


def test_a_guest_who_asks_for_nothing_is_sent_away(server: Server) -> None:
    with contextlib.closing(listen("127.0.0.1:0")) as listener:
        silent = threading.Thread(target=lambda: guests.append(_visit(address_of(listener))))
        guests: list[contextlib.AbstractContextManager[None]] = []
        silent.start()
        guest = Door(listener, CARD, tap=True).welcome()
        silent.join()
        with pytest.raises(PeerLostError, match="asked for nothing for 600 s"):
            guest.serve(Adder, 5, clock=Ticking())
        guest.close()


@pytest.mark.parametrize(
    "sent", [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"SMDC\xff\xff\xff\xff\0\0\0\0", b"SMDC\1\0\0\0\0\0\0\0{", b"S"]
)
def test_a_stranger_at_the_door_is_sent_away_and_the_next_is_served(sent: bytes) -> None:
    server = Server(count=2)
    hung_up = contextlib.suppress(OSError)  # the server may have, before all was said
    with contextlib.closing(connect(server.address)) as stranger, hung_up:
        stranger.sendall(sent)
        stranger.shutdown(socket.SHUT_WR)
        assert stranger.recv(100) == b""
    boundary, home = Boundary("tcp", remote=Remote(server.address, CARD)), Home()
    boundary.open(home, Adder).request(_ids(1))
    boundary.close()
    said = server.wait()
    assert home.got == [2]
    assert said[1] == "left"
    assert "\n" not in said[0]


def test_whoever_comes_between_the_two_connections_of_a_guest_is_told_to_come_back(server: Server) -> None:
    with (
        contextlib.closing(ControlStream(connect(server.address), "server", 5)) as first,
        contextlib.closing(ControlStream(connect(server.address), "server", 5)) as between,
        contextlib.closing(ControlStream(connect(server.address), "server", 5)) as second,
    ):
        first.send({"wire": VERSION, "card": CARD, "tap": True})
        session = first.recv()["session"]
        between.send({"session": "guessed"})
        assert "busy" in between.recv()["refused"]
        second.send({"session": session})
        assert second.recv() == {"session": session}
        second.send(["memory", []])
        assert second.recv() == {"weights": 12, "kv": 3}
    assert server.wait() == ["left"]


def test_a_guest_that_vanishes_inside_a_message_is_noticed(server: Server) -> None:
    host = RemoteHost(Home(), Remote(server.address, CARD), Boundary("tcp")._meter, timeout_s=5)
    host.channel._sock.send(b"MS\2\1")
    host.close()
    assert server.wait() == ["the peer disconnected"]


@contextlib.contextmanager
def _answering(data: bytes) -> Iterator[str]:
    """A server of another kind: says ``data`` to whoever connects."""
    with contextlib.closing(listen("127.0.0.1:0")) as listener:

        def answer() -> None:
            with contextlib.closing(accept(listener, 5)[0]) as sock:
                sock.recv(4096)
                sock.sendall(data)

        thread = threading.Thread(target=answer)
        thread.start()
        yield address_of(listener)
        thread.join()


@pytest.mark.parametrize(
    ("data", "error", "says"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", ProtocolError, "speaks something else"),
        (b"", PeerLostError, "closed the connection"),
        (b"SMDC\2\0\0\0\0\0\0\0{}", ProtocolError, "malformed answer"),
    ],
)
def test_a_server_of_another_kind_is_named(data: bytes, error: type[LabError], says: str) -> None:
    with _answering(data) as address, pytest.raises(error, match=says) as raised:
        Boundary("tcp", remote=Remote(address, CARD)).open(Home(), Adder)
    assert address in str(raised.value)


def test_a_knock_is_nothing_to_the_server(server: Server) -> None:
    knock(server.address)
    with contextlib.closing(Boundary("tcp", remote=Remote(server.address, CARD))) as boundary:
        boundary.open(Home(), Adder)
    assert server.wait() == ["left"]
    with pytest.raises(UnreachableError, match="cannot reach"):
        knock(server.address)


def test_a_server_that_says_nothing_runs_into_the_time_limit() -> None:
    with contextlib.closing(listen("127.0.0.1:0")) as listener:
        remote = Remote(address_of(listener), CARD)
        with pytest.raises(PeerLostError, match=r"silent for 0\.1 s: is it busy"):
            Boundary("tcp", timeout_s=0.1, remote=remote).open(Home(), Adder)


def test_nobody_there_is_one_clear_line() -> None:
    with contextlib.closing(listen("127.0.0.1:0")) as listener:
        address = address_of(listener)
    with pytest.raises(PeerLostError, match=f"cannot reach {address}: .*refused"):
        connect(address)
    with pytest.raises(PeerLostError, match=r"cannot reach no-such-host\.invalid:7000"):
        connect("no-such-host.invalid:7000")
    with pytest.raises(PeerLostError, match="cannot reach /nowhere/socket"):
        connect("/nowhere/socket")


def test_a_port_that_is_taken_is_one_clear_line(tmp_path: Path) -> None:
    for address in ("127.0.0.1:0", str(tmp_path / "socket")):
        with (
            contextlib.closing(listen(address)) as listener,
            pytest.raises(ConfigError, match="choose another address"),
        ):
            listen(address_of(listener))
    with pytest.raises(ConfigError, match=r"cannot listen at 192\.0\.2\.1:7000"):
        listen("192.0.2.1:7000")


def test_a_socket_left_by_a_killed_server_is_taken_over_and_a_file_is_not(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    listen(str(path)).close()
    assert path.exists()
    listen(str(path)).close()
    (tmp_path / "file").write_text("precious")
    with pytest.raises(ConfigError, match="in use"):
        listen(str(tmp_path / "file"))
    assert (tmp_path / "file").read_text() == "precious"


@pytest.mark.parametrize("text", ["", "7000", ":7000", "host", "host:", "host:http", "host:70000", "host:-1"])
def test_an_address_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="write HOST:PORT"):
        Address.parse(text)


@pytest.mark.parametrize("text", ["127.0.0.1:7000", "[::1]:7000", "node-3.lan:0", "./socket", "/run/provider"])
def test_an_address_prints_as_it_is_written(text: str) -> None:
    assert str(Address.parse(text)) == text


def test_small_messages_leave_at_once_and_a_dead_host_is_noticed() -> None:
    for sock in loopback_pair():
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        sock.close()


def test_a_remote_party_needs_the_transport_and_leaves_no_room_for_an_impostor() -> None:
    remote = Remote("127.0.0.1:7000", CARD)
    with pytest.raises(ConfigError, match="needs transport=tcp, not process"):
        Boundary("process", remote=remote)
    with pytest.raises(ConfigError, match="leave address= out"):
        Boundary("tcp", remote=remote, impostor=Adder)


def test_values_beside_the_boundary_survive_and_nothing_else_crosses() -> None:
    near, far = (ControlStream(sock, "peer", 5) for sock in socket.socketpair())
    value = {"a": [1, 2.5, None, True, "x"], "t": torch.arange(6, dtype=torch.float16).view(2, 3).t(), "e": []}
    near.send(value)
    got = far.recv()
    assert torch.equal(got.pop("t"), value.pop("t"))
    assert got == value
    with pytest.raises(ProtocolError, match="a set cannot cross"):
        near.send({1, 2})
    near.send(ConfigError("no such thing"))
    with pytest.raises(ProtocolError, match="no such thing"):
        far.recv()
    text = json.dumps({"tensor:": "7"}).encode()
    near.sock.sendall(b"SMDC" + len(text).to_bytes(4, "little") + bytes(4) + text)
    with pytest.raises(ProtocolError, match="malformed control frame"):
        far.recv()
    near.close()
    far.close()
