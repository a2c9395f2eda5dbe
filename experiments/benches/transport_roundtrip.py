"""Round trip of the process transport for 4 kB each way, all layers of our code, beside a bare pipe's."""

import multiprocessing
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection

import torch

from experiments.benches.case import Case, Settings
from smd_research.boundary import Boundary, Channel, Party, Untrusted
from smd_research.boundary.messages import Message, Tokens

TRIPS = 2000
PAYLOAD = 4096


class Echo(Untrusted):
    """Answers with what it got."""

    def __init__(self, channel: Channel) -> None:
        super().__init__()

    def handle(self, message: Message) -> Message | None:
        return message


class Silent(Party):
    """Serves nothing."""

    def handle(self, message: Message) -> Message | None:
        return None


def _bare_echo(pipe: Connection) -> None:
    while data := pipe.recv_bytes():
        pipe.send_bytes(data)


def cases(settings: Settings) -> Iterator[Case]:
    """One case: microseconds a round trip, ours over a bare ``multiprocessing.Pipe``."""
    near, far = multiprocessing.Pipe()
    context = multiprocessing.get_context("forkserver")
    bare = context.Process(target=_bare_echo, args=(far,), daemon=True)
    bare.start()
    boundary = Boundary("process", record=False, threads=1)
    channel = boundary.open(Silent(), Echo)
    message, data = Tokens(torch.arange(PAYLOAD // 4, dtype=torch.int32)), bytes(PAYLOAD)

    def ours() -> float:
        began = time.perf_counter()
        for _ in range(TRIPS):
            channel.request(message)
        return (time.perf_counter() - began) / TRIPS * 1e6

    def pipe() -> float:
        began = time.perf_counter()
        for _ in range(TRIPS):
            near.send_bytes(data)
            near.recv_bytes()
        return (time.perf_counter() - began) / TRIPS * 1e6

    yield Case(f"4kB bytes={PAYLOAD} boundary/pipe", ours, pipe, "us/roundtrip")
    near.send_bytes(b"")
    bare.join(timeout=2)
    boundary.close()
