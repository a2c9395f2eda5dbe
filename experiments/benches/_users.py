"""What the benches of the service share: rounds of simultaneous requests, and what they took."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Self

import torch

from experiments.benches.case import Label, Measured, Modes, Settings
from smd_research.defenses.smd.requests import ServiceOptions
from smd_research.defenses.smd.service import Service
from smd_research.defenses.smd.stages import Stage
from smd_research.defenses.smd.users import Answer, Ask, Protection
from smd_research.metrics.memory import resident_once
from smd_research.models import Bundle

MEGABYTE = 1e6
MODES = {"none": Protection.NONE, "smd": Protection.SMD, "full": Protection.FULL_ISOLATION}


def endless(bundle: Bundle) -> Bundle:
    """The same model without an end token, so that every side generates equally many."""
    return replace(bundle, end_ids=())


def prompts(bundle: Bundle, users: int, tokens: int, seed: int) -> list[tuple[int, ...]]:
    """A random prompt a user."""
    generator = torch.Generator().manual_seed(seed)
    return [
        tuple(torch.randint(5, bundle.geometry.vocab, (tokens,), generator=generator).tolist()) for _ in range(users)
    ]


@dataclass
class Crowd(AbstractContextManager["Crowd"]):
    """A service with all its users, asked the same round of requests again and again.

    Attributes:
        bundle: the model, without an end token.
        mode: ``none``, ``smd`` or ``full``.
        users: how many.
        prompt: tokens of each prompt.
        new: tokens that each user gets.
        cores: of the machine: the provider takes one thread or as many, whichever is faster with this model and these
            users; users that decode by themselves share them.
        options: of the service.
        clocked: measure the stages of decode steps.
    """

    bundle: Bundle
    mode: str
    users: int
    prompt: int
    new: int
    cores: int
    seed: int = 0
    options: ServiceOptions = field(default_factory=ServiceOptions)
    clocked: bool = False

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.service = stack.enter_context(
                Service(
                    self.bundle,
                    MODES[self.mode],
                    self.options,
                    threads=self.cores,
                    user_threads=max(1, self.cores // self.users) if self.mode == "full" else 1,
                    timeout_s=60,
                    users=self.users,
                    clocked=self.clocked,
                )
            )
            self._seats = [self.service.join() for _ in range(self.users)]
            self._stack = stack.pop_all()
        self.threads = self._faster()
        return self

    def _faster(self) -> int:
        """The provider's better number of threads, by two rounds of each: vaults may have more use for a core."""
        if self.mode == "full" or self.cores == 1:
            return 1
        seconds = {}
        for threads in (1, self.cores):
            self.service.set_threads(threads)
            seconds[threads] = min(self._seconds(self.answers()) for _ in range(2))
        best = min(seconds, key=seconds.__getitem__)
        self.service.set_threads(best)
        return best

    @staticmethod
    def _seconds(answers: Sequence[Answer]) -> float:
        return max(answer.ended for answer in answers) - min(answer.began for answer in answers)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def answers(self) -> list[Answer]:
        """One round: every user asks at once."""
        asks = [Ask(ids, self.new) for ids in prompts(self.bundle, self.users, self.prompt, self.seed)]
        for seat, ask in zip(self._seats, asks, strict=True):
            seat.ask(ask)
        return [seat.answer() for seat in self._seats]

    def round(self) -> Measured:
        """Milliseconds a token, from the first request to the last token, prefill included; and what came along."""
        if self.clocked:
            self.service.stages()
        answers = self.answers()
        seconds = self._seconds(answers)
        extra = {
            "provider_threads": self.threads,
            "tokens_per_s": self.users * self.new / seconds,
            "ttft_ms": 1e3 * sum(answer.generation.ttft_s for answer in answers) / self.users,
            "peak_mb": resident_once(self.service.pids) / MEGABYTE,
            **traffic(answers, self.new),
        }
        if self.clocked:
            # over one user's tokens, not over steps: users join as their prompts are prefilled, differently by mode
            extra |= {_slug(stage): 1e3 * spent / (self.new - 1) for stage, spent in self.service.stages().items()}
        return Measured(1e3 * seconds / self.new, extra)


def traffic(answers: Sequence[Answer], new: int) -> dict[str, float]:
    """Counted traffic of a decode step, over all users."""
    steps = max(new - 1, 1)
    ledgers = [answer.ledger for answer in answers]
    return {
        "rounds_per_token": ledgers[0].rounds / steps,
        "messages_per_token": sum(ledger.messages for ledger in ledgers) / steps,
        "frame_bytes_per_token": sum(ledger.frame_bytes for ledger in ledgers) / steps,
    }


def _slug(stage: Stage) -> str:
    return f"{stage.lower().replace(' ', '_')}_ms"


def interleaved(
    bundle: Bundle,
    name: str,
    modes: Sequence[str],
    users: int,
    prompt: int,
    new: int,
    cores: int,
    settings: Settings,
) -> Iterator[Modes]:
    """One case: the same round in several modes, all services alive at once and measured in turn."""
    case = f"{name} users={users} prompt={prompt} new={new}"
    if not settings.wants(case):
        return
    labels: dict[str, Label] = {
        "model": name,
        "users": users,
        "prompt": prompt,
        "new": new,
        "params": parameters(bundle),
    }
    with ExitStack() as stack:
        crowds = {
            mode: stack.enter_context(Crowd(bundle, mode, users, prompt, new, cores, settings.seed)) for mode in modes
        }
        yield Modes(
            case,
            {mode: crowd.round for mode, crowd in crowds.items()},
            "ms/token",
            labels=labels,
        )


def parameters(bundle: Bundle) -> int:
    """Number of distinct parameters."""
    return sum(parameter.numel() for parameter in bundle.model.parameters())
