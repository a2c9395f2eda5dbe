"""A step under weight decomposition by party, with the traffic that links are modelled on, beside two baselines.

``all_trusted``: the plain float model where the weights are safe; ``all_exposed``: the same at the device, which then
has the weights (unsafe). Both parties of the protocol run here, one after the other, on one machine.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache, partial
from itertools import product

import torch
from torch import Tensor

from experiments.benches._slip import MODELS, RANK, ClockedDevice, model
from experiments.benches._slip_batches import random_prompts, steps
from experiments.benches.case import Measured, Modes, Settings
from smd_research.boundary import Boundary, Channel
from smd_research.boundary.messages import Message
from smd_research.defenses.slip import Slip, SlipDeployment
from smd_research.models.attention import LocalAttention
from smd_research.models.bundle import Bundle
from smd_research.models.hooked import HookedModel

BATCHES = (1, 4, 16)
PROMPT = {"small": {"prefill": 16, "decode": 4}, "full": {"prefill": 128, "decode": 64}}
"""Tokens of each prompt; where decoding is measured they come before it, unmeasured."""
NEW = {"small": 9, "full": 33}
"""Tokens generated where decoding is measured; the first is the prompt's."""
PHASES = ("prefill", "decode")
ID_BYTES = 4


def cases(settings: Settings) -> Iterator[Modes]:
    """Milliseconds of a step: the first token of every prompt of a batch, or one more token of each."""
    for name in MODELS[settings.size]:
        with ExitStack() as stack:
            parties = cache(partial(_deploy, stack, settings, name))
            for phase, batch in product(PHASES, BATCHES):
                work = Work(phase, batch, PROMPT[settings.size][phase], NEW[settings.size], settings.seed)
                yield Modes(
                    f"{name} {phase} batch={batch} prompt={work.prompt}",
                    {
                        "all_trusted": partial(_all_trusted, parties, work),
                        "slip": partial(_slip, parties, work),
                        "all_exposed": partial(_all_exposed, parties, work),
                    },
                    "ms",
                    labels={
                        "model": name,
                        "phase": phase,
                        "batch": batch,
                        "prompt": work.prompt,
                        "tokens": work.tokens,
                        "rank": RANK,
                    },
                )


@dataclass(frozen=True)
class Work:
    """What is measured.

    Attributes:
        phase: ``prefill`` or ``decode``.
        batch: prompts at a time.
        prompt: tokens of each.
        decoded: tokens generated for each where decoding is measured.
        seed: of the prompts.
    """

    phase: str
    batch: int
    prompt: int
    decoded: int
    seed: int

    @property
    def new(self) -> int:
        """Tokens generated for each prompt."""
        return 1 if self.phase == "prefill" else self.decoded

    @property
    def steps(self) -> int:
        """Steps measured."""
        return max(1, self.new - 1)

    @property
    def tokens(self) -> int:
        """Tokens that one step runs through the model."""
        return self.batch * (self.prompt if self.phase == "prefill" else 1)

    def prompts(self, bundle: Bundle) -> Tensor:
        """Token ids ``[B, tokens]``."""
        return random_prompts(bundle, self.batch, self.prompt, self.seed)


class ClockedChannel(Channel):
    """The trusted end of a channel that counts the seconds of requests."""

    def __init__(self, inner: Channel) -> None:
        self._inner = inner
        self.seconds = 0.0

    def notify(self, message: Message) -> None:
        self._inner.notify(message)

    def post(self, message: Message) -> Callable[[], Message]:
        return self._inner.post(message)

    def request(self, message: Message) -> Message:
        began = time.perf_counter()
        reply = self._inner.request(message)
        self.seconds += time.perf_counter() - began
        return reply


class PlainRunner:
    """The float model, decoding batches."""

    def __init__(self, bundle: Bundle) -> None:
        self._model = HookedModel(bundle)
        self._device = bundle.device
        self.start(0)

    def start(self, max_new_tokens: int) -> None:
        """Begin a request."""
        self._attention = LocalAttention()
        self._position = 0

    @torch.inference_mode()
    def forward(self, ids: Tensor) -> Tensor:
        """Run new tokens ``[B, rows]``: logits of the last row ``[B, 1, vocab]``."""
        positions = torch.arange(self._position, self._position + ids.shape[1], device=self._device)
        self._position += ids.shape[1]
        return self._model.forward(self._attention, positions, ids=ids.to(self._device), last_only=True)


@dataclass(frozen=True)
class Parties:
    """The protocol's two parties with their clocks, and the plain model."""

    slip: SlipDeployment
    channel: ClockedChannel
    plain: PlainRunner


def deploy(stack: ExitStack, bundle: Bundle, defense: Slip, seed: int) -> Parties:
    """Both parties in this process, each clocked, and the plain model beside them."""
    clocked = Boundary(record=False, impostor=lambda factory: partial(ClockedDevice, factory))
    slip = stack.enter_context(defense.prepare(bundle, seed=seed).deploy(clocked))
    assert isinstance(slip, SlipDeployment)
    assert slip.rounds.channel is not None
    channel = slip.rounds.channel = ClockedChannel(slip.rounds.channel)
    return Parties(slip, channel, PlainRunner(bundle))


def _deploy(stack: ExitStack, settings: Settings, name: str) -> Parties:
    return deploy(stack, model(settings, name), Slip(rank=RANK), settings.seed)


def protected(parties: Parties, work: Work) -> Measured:
    """A step of the protocol by party; its masks are prepared before the clock starts, which is counted apart."""
    deployment, channel = parties.slip, parties.channel
    run = steps(deployment.keeper, work.prompts(deployment.bundle), work.new)
    prepared = _prepare(deployment, work.batch * work.prompt, work.batch)
    if work.phase == "decode":
        next(run)
        rows = work.batch * work.steps
        prepared = _prepare(deployment, rows, rows)
    deployment.boundary.begin()
    channel.seconds, began = 0.0, time.perf_counter()
    _exhaust(run)
    seconds, waited = time.perf_counter() - began, channel.seconds
    device = deployment.boundary.tap("seconds_since", began)
    parts = {"device": device, "trusted": seconds - waited, "wire": waited - device, "offline": prepared}
    ledger = deployment.boundary.ledger
    traffic = {"rounds": ledger.rounds, "messages": ledger.messages, "frame_bytes": ledger.frame_bytes}
    return _measured(work, seconds, parts, traffic)


def plain(parties: Parties, work: Work, party: str, traffic: Mapping[str, float]) -> Measured:
    """A step of the float model, all of it at one party, with traffic by formula."""
    run = steps(parties.plain, work.prompts(parties.slip.bundle), work.new)
    if work.phase == "decode":
        next(run)[0, 0].item()  # so that an accelerator is done with the prompts
    began = time.perf_counter()
    _exhaust(run)
    seconds = time.perf_counter() - began
    return _measured(
        work, seconds, {"device": 0.0, "trusted": 0.0, "wire": 0.0, "offline": 0.0, party: seconds}, traffic
    )


def _slip(parties: Callable[[], Parties], work: Work) -> Measured:
    return protected(parties(), work)


def _all_trusted(parties: Callable[[], Parties], work: Work) -> Measured:
    return plain(parties(), work, "trusted", {"rounds": 0, "messages": 0, "frame_bytes": 0})


def _all_exposed(parties: Callable[[], Parties], work: Work) -> Measured:
    """The prompts go there and wait for the first token; those after it stream back."""
    if work.phase == "prefill":
        sent = ID_BYTES * work.batch * (work.prompt + 1)
        return plain(parties(), work, "device", {"rounds": 1, "messages": 2, "frame_bytes": sent})
    streamed = ID_BYTES * work.batch * work.steps
    return plain(parties(), work, "device", {"rounds": 0, "messages": work.steps, "frame_bytes": streamed})


def _prepare(deployment: SlipDeployment, rows: int, last: int) -> float:
    """Seconds that masks take which are not there yet."""
    before = deployment.rounds.masking.offline.seconds
    deployment.reserve(rows, last)
    return deployment.rounds.masking.offline.seconds - before


def _exhaust(run: Iterator[Tensor]) -> None:
    for logits in run:
        logits[0, 0].item()  # an accelerator may lag behind until it is read


def _measured(work: Work, seconds: float, parts: Mapping[str, float], traffic: Mapping[str, float]) -> Measured:
    extra = {f"{name}_ms": 1e3 * spent / work.steps for name, spent in parts.items()}
    extra |= {f"{name}_per_token": count / work.steps for name, count in traffic.items()}
    return Measured(1e3 * seconds / work.steps, extra)
