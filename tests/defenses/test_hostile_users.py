"""Users of the service who mean harm, or are slow: the others are served as if they were not there."""

import contextlib
import multiprocessing
import os
import random
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from hostile import VISITS, frame_of, mutated, sample_messages, start_of
from test_service import alone, ask_of

from smd_research.boundary import wire
from smd_research.boundary.addresses import address_of, connect, listen
from smd_research.boundary.channel import Meter
from smd_research.boundary.messages import Done, Message, PartialAttention, Tokens
from smd_research.boundary.stream import StreamChannel
from smd_research.core.clock import Clock
from smd_research.core.errors import ProtocolError
from smd_research.defenses.smd.requests import ServiceOptions
from smd_research.defenses.smd.server import Server
from smd_research.defenses.smd.service import Service
from smd_research.defenses.smd.users import Ask
from smd_research.defenses.smd.vault import Vault
from smd_research.models import Bundle, sources
from smd_research.models.hooked import HookedModel

VISITORS = int(os.environ.get("SMD_HOSTILE", "40"))
FRAMES = int(os.environ.get("SMD_MUTANTS", "4000"))


@pytest.fixture(scope="module")
def llama() -> Bundle:
    return sources.random("llama")


@pytest.fixture(scope="module")
def service(llama: Bundle) -> Iterator[Service]:
    with Service(llama, timeout_s=60, patience_s=120, users=4) as service:
        yield service


def test_after_every_hostile_user_the_next_honest_one_is_served_unchanged(llama: Bundle, service: Service) -> None:
    ask = ask_of(llama, 1, new=4)
    expected = alone(llama, ask)
    old = service.join()
    for seed in range(VISITORS):
        dice = random.Random(seed)
        dice.choice(VISITS)(service.address, dice)
        user = service.join() if seed % 20 == 0 else old
        user.ask(ask)
        assert user.answer().generation.ids == expected, seed


def test_mutated_frames_end_in_the_defined_error_only() -> None:
    dice = random.Random(0)
    frames = [wire.encode(message, wire.FrameKind.REQUEST, 3) for message in sample_messages()]
    decoded = 0
    for _ in range(FRAMES):
        data = mutated(dice.choice(frames), dice)
        with contextlib.suppress(ProtocolError):
            header = wire.decode_header(data)
            wire.decode(header.type, bytearray(data[wire.HEADER.size :]))
            decoded += 1
    assert 0 < decoded < FRAMES


# -- slow vaults -----------------------------------------------------------------------------------------------------


class Hesitating(Vault):
    """A vault that holds its ``held``-th answer back until it is let go, and every other one for ``pause_s``."""

    def __init__(self, held: int = 0, pause_s: float = 0.0) -> None:
        super().__init__(torch.float32)
        self.reached, self.let_go = threading.Event(), threading.Event()
        self._held, self._pause_s = held, pause_s
        self._answers = 0

    def handle(self, message: Message) -> Message | None:
        answer = super().handle(message)
        if isinstance(answer, PartialAttention):
            self._answers += 1
            time.sleep(self._pause_s)
            if self._answers == self._held:
                self.reached.set()
                assert self.let_go.wait(60)
        return answer


def decode(service: Service, bundle: Bundle, vault: Vault, new: int) -> None:
    """Have a prompt of four tokens decoded with this vault."""
    channel = StreamChannel(connect(service.address), meter=Meter(record=False), timeout_s=60)
    with contextlib.closing(channel):
        channel.serve_for(vault)
        logits = vault.prefill(HookedModel(bundle), torch.tensor([[7, 8, 9, 10]]))
        vault.decode(channel, logits, max_new_tokens=new, end_ids=bundle.end_ids)


@pytest.mark.parametrize("held", [1, 2, 6])
def test_a_vault_that_holds_an_answer_back_holds_up_nobody_else_and_goes_on(
    llama: Bundle, service: Service, held: int
) -> None:
    """While it waits in the first or a later layer, another user joins, is served, and a third joins and is served."""
    vault = Hesitating(held)
    slow = threading.Thread(target=decode, args=(service, llama, vault, 8))
    slow.start()
    assert vault.reached.wait(60)
    asks = [ask_of(llama, number, new=12) for number in (1, 2)]
    for ask in asks:
        user = service.join()
        user.ask(ask)
        assert user.answer().generation.ids == alone(llama, ask)
    vault.let_go.set()
    slow.join(60)
    assert tuple(vault.ids) == alone(llama, _four(8))


def _four(new: int) -> Ask:
    return Ask((7, 8, 9, 10), new)


@pytest.mark.parametrize("inner", [0, 1])
def test_users_of_every_pace_get_what_they_would_get_alone(llama: Bundle, inner: int) -> None:
    with Service(llama, options=ServiceOptions(inner_layers=inner), users=3, patience_s=120) as service:
        users = [service.join() for _ in range(2)]
        asks = [ask_of(llama, number, new=60) for number in (1, 2)]
        vaults = [] if inner else [Hesitating(pause_s=0.03), Hesitating(pause_s=0.15)]
        slow = [threading.Thread(target=decode, args=(service, llama, vault, 6)) for vault in vaults]
        for thread in slow:
            thread.start()
        for user, ask in zip(users, asks, strict=True):
            user.ask(ask)
        assert [user.answer().generation.ids for user in users] == [alone(llama, ask) for ask in asks]
        for thread in slow:
            thread.join(60)
    assert [tuple(vault.ids) for vault in vaults] == [alone(llama, _four(6))] * len(vaults)


# -- deadlines, on a clock that is turned by hand ----------------------------------------------------------------------


class ByHand(Clock):
    """Stands still until somebody turns it; every wait takes a hundredth of a second here."""

    def __init__(self) -> None:
        self.time = 0.0

    def now(self) -> float:
        return self.time

    def until(self, deadline: float) -> float:
        return min(super().until(deadline), 0.01)


@pytest.fixture
def hosted(llama: Bundle) -> Iterator[tuple[str, ByHand]]:
    """A server in a thread, its address and its clock."""
    clock = ByHand()
    ours, theirs = multiprocessing.Pipe()
    with contextlib.closing(listen("127.0.0.1:0")) as listener:
        server = Server(llama, ServiceOptions(), listener, theirs, timeout_s=10, idle_s=600, clock=clock)
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        yield address_of(listener), clock
        ours.close()
        thread.join(20)
        assert not thread.is_alive()


def _open(sock: socket.socket) -> bool:
    """Whether the other side has the connection open still, some moments from now."""
    sock.settimeout(1)
    try:
        while sock.recv(4096):
            pass
    except TimeoutError:
        return True
    except OSError:
        pass
    return False


def test_half_a_frame_has_a_deadline_and_silence_a_longer_one(hosted: tuple[str, ByHand]) -> None:
    address, clock = hosted
    silent, slow = connect(address), connect(address)
    frame = frame_of(start_of())
    for byte in frame[:12]:  # a byte a second: each in time, the frame is not
        slow.sendall(bytes([byte]))
        time.sleep(0.02)
        clock.time += 1
    assert not _open(slow)
    assert _open(silent)
    clock.time += 600
    assert not _open(silent)


def test_a_vault_that_does_not_answer_loses_its_request(hosted: tuple[str, ByHand], llama: Bundle) -> None:
    address, clock = hosted
    with contextlib.closing(StreamChannel(connect(address), timeout_s=20)) as channel:
        channel._write(bytes(frame_of(start_of(max_new_tokens=5))))
        channel.receive()  # the first layer's query
        clock.time += 11
        with pytest.raises(ProtocolError, match="did not answer within 10 s"):
            channel.receive()


def test_who_takes_no_answers_holds_up_nobody(hosted: tuple[str, ByHand], llama: Bundle) -> None:
    """A user whose prompt is public has hundreds of tokens coming and reads none; another is served meanwhile."""
    address, _ = hosted
    public = torch.randint(5, 4000, (20,), dtype=torch.int32)
    none = torch.zeros(0, dtype=torch.int32)
    deaf, other = (StreamChannel(connect(address), timeout_s=60) for _ in range(2))
    deaf._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    plain = start_of(first=none, public=public, position=20)
    deaf._write(bytes(frame_of(replace(plain, max_new_tokens=llama.geometry.context - 20))))
    other._write(bytes(frame_of(plain)))
    assert [type(other.receive()[1]) for _ in range(5)] == [Tokens] * 4 + [Done]
    for channel in (deaf, other):
        channel.close()


def test_strangers_who_fill_the_house_make_room_for_users(hosted: tuple[str, ByHand]) -> None:
    address, _ = hosted
    strangers = [connect(address) for _ in range(300)]
    none = torch.zeros(0, dtype=torch.int32)
    with contextlib.closing(StreamChannel(connect(address), timeout_s=20)) as channel:
        ids = torch.tensor([7, 8, 9, 10], dtype=torch.int32)
        channel._write(bytes(frame_of(start_of(first=none, public=ids))))
        assert isinstance(channel.receive()[1], Tokens)
    for stranger in strangers:
        stranger.close()
