"""An honest user's time beside hostile peers, and alone: of a service for many users, and of ``smd serve``.

The peers run in processes of their own, at the lowest priority, so that what is measured is what they make the server
do and wait for, rather than the processor that they take.
"""

import contextlib
import os
import random
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.synchronize import Semaphore
from threading import Thread
from types import TracebackType
from typing import Self

import torch

from experiments.benches._users import endless, prompts
from experiments.benches.case import Modes, Settings
from experiments.trials.hosting import Offer, host, provider
from smd_research.boundary import Boundary, wire
from smd_research.boundary.addresses import address_of, connect, listen
from smd_research.boundary.control import ControlStream
from smd_research.boundary.messages import PartialAttention, Query, StartDecode, token_tensor
from smd_research.boundary.process import fork_server
from smd_research.boundary.remote import Remote
from smd_research.boundary.stream import StreamChannel
from smd_research.core.errors import LabError
from smd_research.defenses.none import NoDefense
from smd_research.defenses.smd.service import Service
from smd_research.defenses.smd.users import Ask
from smd_research.models import sources

PROMPT, NEW = 64, 32
PACE_S = 0.05
PEERS = 8
START_S = 60.0
SETTLE_S = 0.5

Peer = Callable[[str, random.Random], None]
"""One turn of a hostile peer at an address; it is called again and again."""


def _start() -> bytes:
    law = torch.tensor([0.0, 1.0])
    start = StartDecode(token_tensor([7]), token_tensor([]), law, 1, 4, 200, 0, 0)
    return wire.encode(start, wire.FrameKind.REQUEST, 1)


def dribbles(address: str, dice: random.Random) -> None:
    """A byte now and then, on many connections."""
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(contextlib.closing(connect(address))) for _ in range(PEERS)]
        for byte in _start():
            for sock in socks:
                sock.send(bytes([byte]))
            time.sleep(PACE_S)


def answers_slowly(address: str, dice: random.Random) -> None:
    """Requests in the batch, whose vaults send their answers a byte at a time."""
    with contextlib.ExitStack() as stack:
        channels = []
        for _ in range(PEERS):
            channels.append(stack.enter_context(contextlib.closing(StreamChannel(connect(address)))))
            channels[-1]._write(_start())
        while True:
            answers = []
            for channel in channels:
                query = None
                while not isinstance(query, Query):  # but a token
                    header, query = channel.receive()
                m = query.q[:, :, 0].float()
                answer = PartialAttention(m, m.exp(), query.q, query.request, query.layer, query.position)
                answers.append(wire.encode(answer, wire.FrameKind.REPLY, header.sequence))
            for part in range(20):
                for channel, frame in zip(channels, answers, strict=True):
                    channel._write(frame[part : part + 1] if part < 19 else frame[19:])
                time.sleep(PACE_S / 10)


def comes_and_goes(address: str, dice: random.Random) -> None:
    """A connection that says something that is no frame, and leaves."""
    with contextlib.closing(connect(address)) as sock:
        sock.sendall(dice.randbytes(dice.randint(1, 500)))
    time.sleep(PACE_S / 10)


def asks_nonsense(address: str, dice: random.Random) -> None:
    """Requests that are refused, one after the other."""
    with contextlib.closing(StreamChannel(connect(address))) as channel:
        for turn in range(200):
            law = torch.tensor([-1.0, 1.0])
            with contextlib.suppress(LabError):
                channel.request(StartDecode(token_tensor([7]), token_tensor([]), law, turn, 4, 9, 0, 0))
            time.sleep(PACE_S / 10)


def greets_slowly(address: str, dice: random.Random) -> None:
    """Callers at the door who say their greeting a byte at a time, or nothing."""
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(contextlib.closing(connect(address))) for _ in range(PEERS)]
        for byte in b"SMDC" + (1000).to_bytes(4, "little") + bytes(4):
            for sock in socks[::2]:
                sock.send(bytes([byte]))
            time.sleep(PACE_S)


def calls_and_goes(address: str, dice: random.Random) -> None:
    """Callers who are refused."""
    with contextlib.closing(ControlStream(connect(address), "server", 5)) as stream:
        stream.send({"wire": dice.randrange(9), "card": {}, "tap": True})
    time.sleep(PACE_S / 10)


def _harass(peer: Peer, address: str, ready: Semaphore) -> None:
    """Main of the process of a hostile peer, which says when it has started: that takes seconds of processor time."""
    os.nice(19)
    torch.set_num_threads(1)
    dice = random.Random(0)
    ready.release()
    while True:
        with contextlib.suppress(LabError, OSError):
            peer(address, dice)


@dataclass
class Beside:
    """Runs hostile peers for as long as it is entered."""

    peers: tuple[Peer, ...]
    address: str

    def __enter__(self) -> Self:
        ready = fork_server().Semaphore(0)
        self._processes = [
            fork_server().Process(target=_harass, args=(peer, self.address, ready), daemon=True) for peer in self.peers
        ]
        for process in self._processes:
            process.start()
        for _ in self._processes:
            ready.acquire(timeout=START_S)
        time.sleep(SETTLE_S if self.peers else 0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes:
            process.kill()
            process.join()


def _each(kinds: tuple[Peer, ...]) -> dict[str, tuple[Peer, ...]]:
    return {kind.__name__: (kind,) for kind in kinds}


def _modes(name: str, address: str, peers: dict[str, tuple[Peer, ...]], once: Callable[[], float], unit: str) -> Modes:
    def side(which: tuple[Peer, ...]) -> Callable[[], float]:
        def measure() -> float:
            with Beside(which, address):
                return once()

        return measure

    everyone = {"alone": (), **peers, "all": tuple(peer for some in peers.values() for peer in some)}
    return Modes(name, {mode: side(which) for mode, which in everyone.items()}, unit)


def _host(listener: socket.socket, offered: Offer) -> None:
    """A listening party that keeps to itself whom it refuses, until the listener is closed."""
    with contextlib.suppress(OSError):
        host(listener, offered, tell=lambda _: None)


def cases(settings: Settings) -> Iterator[Modes]:
    """The service, then a listening party; alone, beside each kind of peers, and beside all of them."""
    bundle = endless(sources.embedded())
    (ids,) = prompts(bundle, 1, PROMPT, settings.seed)
    with Service(bundle, users=PEERS, timeout_s=60) as service:
        user = service.join()

        def ask() -> float:
            user.ask(Ask(ids, NEW))
            answer = user.answer()
            return 1e3 * (answer.ended - answer.began) / NEW

        users = (dribbles, answers_slowly, comes_and_goes, asks_nonsense)
        yield _modes(f"service prompt={PROMPT} new={NEW}", service.address, _each(users), ask, "ms/token")
    with contextlib.closing(listen("127.0.0.1:0")) as listener:
        address = address_of(listener)
        prepared = NoDefense().prepare(bundle)
        offered = Offer(provider(NoDefense(), bundle), {"model": "embedded"})
        Thread(target=_host, args=(listener, offered), daemon=True).start()

        def visit() -> float:
            began = time.perf_counter()
            boundary = Boundary("tcp", record=False, remote=Remote(address, offered.card))
            with prepared.deploy(boundary) as deployment:
                deployment._request(ids, NEW, None)
            return 1e3 * (time.perf_counter() - began)

        callers = (greets_slowly, calls_and_goes)
        yield _modes(f"serve prompt={PROMPT} new={NEW}", address, _each(callers), visit, "ms/session")
