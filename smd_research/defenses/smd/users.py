"""A user of the service: an OS process of its own with the user's vault, or with a model copy of the user's own."""

import copy
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from multiprocessing.connection import Connection

import torch

from smd_research.boundary import Channel
from smd_research.boundary.addresses import connect
from smd_research.boundary.channel import InProcessChannel, Meter
from smd_research.boundary.ledger import Direction, Ledger
from smd_research.boundary.messages import StartDecode, token_tensor
from smd_research.boundary.stream import StreamChannel
from smd_research.core.errors import LabError
from smd_research.defenses.base import Client, Generation
from smd_research.defenses.smd.decode import DecodeService
from smd_research.defenses.smd.requests import ServiceOptions
from smd_research.defenses.smd.vault import Vault
from smd_research.models.hooked import HookedModel
from smd_research.models.sampling import GREEDY, Sampling
from smd_research.models.shared import SharedWeights


class Protection(StrEnum):
    """How a user is served."""

    SMD = "smd"
    NONE = "none"
    FULL_ISOLATION = "full_isolation"


@dataclass(frozen=True, repr=False)
class Ask:
    """A request.

    Attributes:
        ids: the prompt's token ids; of a later turn, the tokens since the last answer.
        max_new_tokens: tokens to generate at most.
        sampling: the law of the next token.
        seed: of the request's own counter-based generator.
        public: leading tokens of the prompt that are no secret.
        turn: 0 for a single request, else the turn of a conversation, from 1.
    """

    ids: tuple[int, ...]
    max_new_tokens: int
    sampling: Sampling = GREEDY
    seed: int = 0
    public: int = 0
    turn: int = 0


@dataclass(frozen=True, repr=False)
class Answer:
    """What a user got.

    Attributes:
        generation: token ids and times.
        began: clock reading (``time.perf_counter``, one clock for all processes of the machine) at the request.
        ended: the same at the last token.
        ledger: messages and bytes at the user's end.
        kv_bytes: keys and values the user's process holds.
    """

    generation: Generation
    began: float
    ended: float
    ledger: Ledger
    kv_bytes: int


@dataclass(frozen=True)
class UserOptions:
    """How a user's process is set up."""

    protection: Protection
    service: ServiceOptions
    timeout_s: float
    threads: int
    spin_s: float


class VaultUser:
    """A user whose prompt stays in the vault."""

    def __init__(self, weights: SharedWeights, channel: StreamChannel, meter: Meter, options: UserOptions) -> None:
        service = options.service
        self._weights = weights
        self._channel = channel
        self._meter = meter
        self.client = Vault(service.wire_dtype, service.inner_layers, place=service.merge)
        channel.serve_for(self.client)
        with weights as bundle:
            self._bundle = bundle
            self._model = HookedModel(bundle)
            self._inner = HookedModel(bundle, None, service.inner_layers) if service.inner_layers else None

    @property
    def ledger(self) -> Ledger:
        """Counts since the last request began."""
        return self._meter.ledger

    def serve(self, ask: Ask) -> None:
        """Prefill here, on weights mapped for just that long, and have the service decode."""
        self._meter.clear()
        vault = self.client
        bundle = self._weights.attach()
        bundle.check_prompt(len(ask.ids), ask.max_new_tokens)
        if ask.turn > 1:
            logits = vault.prefill_turn(self._model, ask.ids, self._channel)
        else:
            logits = vault.prefill(self._model, torch.tensor([ask.ids]), ask.public)
        if self._inner is None:
            self._weights.detach()
        vault.decode(
            self._channel,
            logits,
            public=ask.ids[: ask.public],
            max_new_tokens=ask.max_new_tokens,
            end_ids=self._bundle.end_ids,
            sampling=ask.sampling,
            seed=ask.seed,
            turn=ask.turn,
            inner=self._inner,
        )

    @property
    def kv_bytes(self) -> int:
        """Bytes of keys and values in the vault."""
        return self.client.store.nbytes


class PlainUser:
    """A user who hands the whole prompt over, as something public, to a service of all or of their own."""

    def __init__(self, channel: Channel, ledger: Callable[[], Ledger], kv_bytes: Callable[[], int]) -> None:
        self.client = Client()
        self._channel = channel
        self._ledger = ledger
        self._kv_bytes = kv_bytes

    @property
    def ledger(self) -> Ledger:
        """Counts since the process began."""
        return self._ledger()

    def serve(self, ask: Ask) -> None:
        """Send the prompt, collect the tokens."""
        law = torch.tensor([ask.sampling.temperature, ask.sampling.top_p])
        self._channel.request(
            StartDecode(
                token_tensor([]), token_tensor(ask.ids), law, 0, len(ask.ids), ask.max_new_tokens - 1, ask.seed, 0
            )
        )

    @property
    def kv_bytes(self) -> int:
        """Bytes of keys and values in this process."""
        return self._kv_bytes()


def _vault_user(weights: SharedWeights, address: str, options: UserOptions) -> VaultUser:
    meter = Meter(record=True)
    channel = StreamChannel(connect(address), meter=meter, timeout_s=options.timeout_s, spin_s=options.spin_s)
    return VaultUser(weights, channel, meter, options)


def _plain_user(address: str, options: UserOptions) -> PlainUser:
    meter = Meter(record=False)
    channel = StreamChannel(connect(address), meter=meter, timeout_s=options.timeout_s, spin_s=options.spin_s)
    user = PlainUser(channel, lambda: meter.ledger, lambda: 0)
    channel.serve_for(user.client)
    return user


def _isolated_user(weights: SharedWeights, options: UserOptions) -> PlainUser:
    """A whole model of the user's own: a private copy of the weights, and nobody to share a batch with."""
    with weights as bundle:
        model = copy.deepcopy(bundle.model)  # every tensor cloned into this process's own memory
        own = replace(bundle, model=model)
    meter = Meter(record=False)
    outward = InProcessChannel(meter, Direction.TO_UNTRUSTED)
    inward = InProcessChannel(meter, Direction.TO_TRUSTED)
    service = DecodeService(own, options.service, inward)
    user = PlainUser(outward, lambda: meter.ledger, lambda: service.memory()["kv"])
    outward.connect(service)
    inward.connect(user.client)
    return user


def _set_up(weights: SharedWeights, address: str, options: UserOptions) -> VaultUser | PlainUser:
    match options.protection:
        case Protection.SMD:
            return _vault_user(weights, address, options)
        case Protection.NONE:
            return _plain_user(address, options)
        case Protection.FULL_ISOLATION:
            return _isolated_user(weights, options)


def live(weights: SharedWeights, address: str, options: UserOptions, control: Connection) -> None:
    """Main of a user's process: one request after the other, as they are asked for over ``control``."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(options.threads)
    try:
        user = _set_up(weights, address, options)
        control.send(None)
        while True:
            ask = control.recv()
            try:
                control.send(_answered(user, ask))
            except LabError as error:
                control.send(error)
    except (EOFError, ConnectionError):
        return
    except LabError as error:
        control.send(error)


def _answered(user: VaultUser | PlainUser, ask: Ask) -> Answer:
    user.client.restart()
    began = time.perf_counter()
    user.serve(ask)
    times = user.client.times
    generation = Generation(tuple(user.client.ids), times[0] - began, times[-1] - began)
    return Answer(generation, began, times[-1], user.ledger, user.kv_bytes)
