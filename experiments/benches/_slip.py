"""What the benches of weight decomposition share: a clocked device, and pairs of a protected and a plain model."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache, partial
from itertools import product

from experiments.benches._users import endless, prompts
from experiments.benches.case import Case, Measured, Settings
from smd_research.boundary import Boundary, Channel, Untrusted
from smd_research.boundary.messages import Message
from smd_research.boundary.process import UntrustedFactory
from smd_research.data.prompts import Prompt
from smd_research.defenses.base import Deployment
from smd_research.defenses.none import NoDefense
from smd_research.defenses.slip import Slip, SlipDeployment
from smd_research.defenses.slip.accounting import Sizes, cost
from smd_research.models import Bundle, sources
from smd_research.models.smollm2_package import installed

MODELS = {"small": ("embedded", "100m"), "full": ("embedded", "gpt2_124m", "llama2_7b")}
RANK = 8


def models(settings: Settings) -> tuple[str, ...]:
    """Names of the models that are measured: the real one among them where its package is installed."""
    return (*MODELS[settings.size], *(("smollm2",) if installed() else ()))


def model(settings: Settings, name: str) -> Bundle:
    """A model by name, without an end token: the embedded or the real one, or random weights of a family or a size."""
    if name == "embedded":
        return endless(sources.embedded(settings.device))
    if name == "smollm2":
        return endless(sources.smollm2(settings.device))
    return endless(sources.random(name, settings.seed, settings.device))


class ClockedDevice(Untrusted):
    """An untrusted party in this process whose answers are request."""

    def __init__(self, factory: UntrustedFactory, channel: Channel) -> None:
        super().__init__()
        self._inner = factory(channel)
        self._answers: list[tuple[float, float]] = []

    def handle(self, message: Message) -> Message | None:
        began = time.perf_counter()
        reply = self._inner.handle(message)
        self._answers.append((began, time.perf_counter() - began))
        return reply

    def seconds_since(self, moment: float) -> float:
        """Seconds of the answers begun after a moment; those before are forgotten."""
        self._answers = [answer for answer in self._answers if answer[0] >= moment]
        return sum(seconds for _, seconds in self._answers)


@dataclass(frozen=True)
class BenchRequest:
    """What is asked of either side: the first token is measured, or, where there are more, all that follow it.

    Attributes:
        prompt: tokens of the prompt.
        new: tokens generated.
    """

    prompt: int
    new: int

    @property
    def unit(self) -> str:
        """Of the measurement."""
        return "ms/token" if self.new > 1 else "ms"

    @property
    def context(self) -> int:
        """Tokens that a measured token attends to, on average."""
        return self.prompt + self.new // 2 if self.new > 1 else (self.prompt + 1) // 2


@dataclass(frozen=True)
class SlipParties:
    """Both deployments of one model, and one request to either.

    Attributes:
        plain: the model without protection.
        slip: the same one decomposed, its device clocked.
        prompt: of the request.
        request: its sizes.
        trusted_flops_share: the trusted side's part of all FLOPs of a token.
    """

    plain: Deployment
    slip: SlipDeployment
    prompt: Prompt
    request: BenchRequest
    trusted_flops_share: float

    def baseline(self) -> float:
        """Milliseconds of the plain model."""
        return self._milliseconds(self.plain)

    def value(self) -> Measured:
        """Milliseconds of the decomposed model, by party."""
        began = time.perf_counter()
        value = self._milliseconds(self.slip)
        prompt, new = self.request.prompt, self.request.new
        since = self.slip.client.times[0] if new > 1 else began
        device = 1e3 * self.slip.boundary.tap("seconds_since", since) / max(1, new - 1)
        extra = {
            "device_ms": device,
            "trusted_ms": value - device,
            "offline_ms_per_token": 1e3 * self.slip.facts["offline_s"] / (prompt + new - 1),
            "trusted_flops_share": self.trusted_flops_share,
        }
        return Measured(value, extra)

    def _milliseconds(self, deployment: Deployment) -> float:
        generation = deployment.generate(self.prompt, self.request.new)
        return 1e3 * (generation.ttft_s if generation.tpot_s is None else generation.tpot_s)


def pairs(settings: Settings, request: BenchRequest, forms: Mapping[str, int]) -> Iterator[Case]:
    """Both models, each form of the exposed weights (bits by field): strict, in process, beside the plain model.

    A case also says how many milliseconds passed at the device and at the trusted side (the wire counted with it), how
    many a token's masks took beforehand, and which share of the FLOPs is the trusted side's (``accounting``). It is
    deployed when it is first measured: to decompose a model takes longer than all the rest.
    """
    for name, (field, bits) in product(models(settings), forms.items()):
        with ExitStack() as stack:
            parties = cache(partial(_deploy, stack, settings, request, name, Slip(rank=RANK, bits=bits, field=field)))
            yield Case(
                f"{name} bits={bits} field={field} prompt={request.prompt} threads={settings.threads} slip/none",
                partial(_value, parties),
                partial(_baseline, parties),
                request.unit,
                labels={"model": name, "bits": bits, "field": field, "prompt": request.prompt, "rank": RANK},
            )


def _value(parties: Callable[[], SlipParties]) -> Measured:
    return parties().value()


def _baseline(parties: Callable[[], SlipParties]) -> float:
    return parties().baseline()


def _deploy(stack: ExitStack, settings: Settings, request: BenchRequest, name: str, defense: Slip) -> SlipParties:
    bundle = model(settings, name)
    clocked = Boundary(record=False, impostor=lambda factory: partial(ClockedDevice, factory))
    plain = stack.enter_context(NoDefense().prepare(bundle).deploy(Boundary(record=False)))
    slip = stack.enter_context(defense.prepare(bundle, seed=settings.seed).deploy(clocked))
    assert isinstance(slip, SlipDeployment)
    whole = cost(Sizes.of(bundle), slip.parts.ranks, request.context, repetitions=defense.verify)
    prompt = Prompt("bench", "", prompts(bundle, 1, request.prompt, settings.seed)[0])
    return SlipParties(plain, slip, prompt, request, whole.trusted_share)
