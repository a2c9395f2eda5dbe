"""The provider's process of a service for many users: many connections, one batch."""

import select
import signal
import socket
from multiprocessing.connection import Connection

import torch

from smd_research.boundary.addresses import accept
from smd_research.boundary.messages import Done, OutputRequest, StartDecode
from smd_research.boundary.stream import StreamChannel
from smd_research.boundary.wire import FrameKind
from smd_research.core.errors import LabError, PeerLostError, ProtocolError
from smd_research.defenses.smd.batch import DecodeBatch
from smd_research.defenses.smd.requests import Request, ServiceOptions
from smd_research.defenses.smd.stages import StageClock
from smd_research.models.shared import SharedWeights


class Server:
    """Serves whoever connects; requests join the batch between two steps and leave it when they are done.

    Args:
        batch: decodes.
        listener: where users connect.
        control: commands from whoever started the process; outside the boundary.
        timeout_s: how long a vault may stay silent in a step before its request fails.
        spin_s: how long a receive stays awake before it sleeps.
    """

    def __init__(
        self,
        batch: DecodeBatch,
        listener: socket.socket,
        control: Connection,
        *,
        timeout_s: float,
        spin_s: float,
        clock: StageClock,
    ) -> None:
        self._batch = batch
        self._listener = listener
        self._control = control
        self._timeout_s = timeout_s
        self._spin_s = spin_s
        self._clock = clock
        self._channels: dict[int, StreamChannel] = {}
        self._sequences: dict[Request, int] = {}
        self._poll = select.poll()
        for descriptor in (listener.fileno(), control.fileno()):
            self._poll.register(descriptor, select.POLLIN)

    def run(self) -> None:
        """Serve until whoever started the process closes the control connection."""
        while True:
            # users are looked after between steps; without a request there is nothing else to do than wait
            for descriptor, _ in self._poll.poll(0 if self._batch.requests else None):
                if descriptor == self._listener.fileno():
                    self._welcome()
                elif descriptor == self._control.fileno():
                    try:
                        command = self._control.recv()
                    except (EOFError, ConnectionError):
                        return
                    self._control.send(self._command(*command))
                else:
                    self._listen_to(self._channels[descriptor])
            if self._batch.requests:
                self._clock.resume()
                self._batch.step()
                for request in self._batch.settle():
                    self._conclude(request)

    def _command(self, name: str, value: int = 0) -> object:
        match name:
            case "threads":
                torch.set_num_threads(value)
                return None
            case "stages":
                seconds, steps = self._clock.seconds, self._clock.steps
                self._clock.start()
                return seconds, steps
            case "kv":
                return self._batch.kv_bytes
            case _:
                return None

    def _welcome(self) -> None:
        sock, _ = accept(self._listener)
        channel = StreamChannel(sock, timeout_s=self._timeout_s, spin_s=self._spin_s)
        self._channels[channel.fileno()] = channel
        self._poll.register(channel.fileno(), select.POLLIN)

    def _listen_to(self, channel: StreamChannel) -> None:
        """Take one message of a user who has no request in the batch."""
        try:
            header, message = channel.receive()
            if header.kind is not FrameKind.REQUEST:
                raise ProtocolError(f"a user sent {type(message).__name__} where a request was expected")
        except LabError:
            self._drop(channel)
            return
        try:
            if isinstance(message, OutputRequest):
                channel.reply(self._batch.outputs(message, channel), header.sequence)
            elif isinstance(message, StartDecode):
                # in the batch its channel is read by the step alone
                self._poll.unregister(channel.fileno())
                try:
                    self._sequences[self._batch.admit(message, channel)] = header.sequence
                except LabError:
                    self._poll.register(channel.fileno(), select.POLLIN)
                    raise
            else:
                raise ProtocolError(f"the decode service does not serve {type(message).__name__}")
        except PeerLostError:
            self._drop(channel)
        except LabError as error:
            channel.refuse(str(error), header.sequence)

    def _conclude(self, request: Request) -> None:
        """Answer a request that has left the batch; a channel that failed is out of step and is closed."""
        channel = request.channel
        assert isinstance(channel, StreamChannel)
        sequence = self._sequences.pop(request)
        self._poll.register(channel.fileno(), select.POLLIN)
        try:
            if request.failure is None:
                channel.reply(Done(), sequence)
                return
            channel.refuse(f"the request failed: {request.failure}", sequence)
        except LabError:
            pass
        self._drop(channel)

    def _drop(self, channel: StreamChannel) -> None:
        self._poll.unregister(channel.fileno())
        del self._channels[channel.fileno()]
        self._batch.forget(channel)
        channel.close()


def serve_users(
    weights: SharedWeights,
    options: ServiceOptions,
    listener: socket.socket,
    threads: int,
    timeout_s: float,
    spin_s: float,
    clocked: bool,
    control: Connection,
) -> None:
    """Main of the provider's process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(threads)
    clock = StageClock()
    batch = DecodeBatch(weights.attach(), options, clock if clocked else None)
    server = Server(batch, listener, control, timeout_s=timeout_s, spin_s=spin_s, clock=clock)
    control.send(None)
    server.run()
