"""What every defense has in common: a configuration that deploys into two live parties."""

import time
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import TracebackType
from typing import Self

import torch
from torch import Tensor

from smd_research.boundary import Boundary, Channel, Party, Untrusted
from smd_research.boundary.messages import Message, Tokens
from smd_research.core.errors import ProtocolError
from smd_research.core.guarantee import Guarantee
from smd_research.core.observable import Observable
from smd_research.core.wrapper import BARE, Wrapper
from smd_research.data.prompts import Prompt
from smd_research.models.bundle import Bundle


@dataclass(frozen=True, repr=False)
class Generation:
    """What the user gets, and when.

    Attributes:
        ids: generated token ids.
        ttft_s: seconds from the request to the first token at the trusted side.
        total_s: seconds to the last token.
        waits: milliseconds of the time to the first token that the defense tells apart, by metric.
    """

    ids: tuple[int, ...]
    ttft_s: float
    total_s: float
    waits: Mapping[str, float] = field(default_factory=dict)

    @property
    def tpot_s(self) -> float | None:
        """Seconds per output token after the first; None for a single token."""
        return (self.total_s - self.ttft_s) / (len(self.ids) - 1) if len(self.ids) > 1 else None


@dataclass(frozen=True)
class Memory:
    """Bytes held by the parties: weights (tensors that the parties share count once) and KV caches."""

    weights: int
    kv_trusted: int
    kv_untrusted: int


class Client(Party):
    """The user's side of a request: collects the tokens that come back."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.times: list[float] = []

    def take(self, token: int) -> None:
        """Note one generated token and its time."""
        self.ids.append(token)
        self.times.append(time.perf_counter())

    def handle(self, message: Message) -> Message | None:
        if not isinstance(message, Tokens):
            raise ProtocolError(f"the client does not serve {type(message).__name__}")
        for token in message.ids.tolist():
            self.take(token)
        return None

    def restart(self) -> None:
        """Forget the last request."""
        self.ids, self.times = [], []


class Deployment(ABC):
    """Two live parties; a context manager that leaves the bundle as it found it.

    Args:
        bundle: the model; shared, never modified.
        boundary: joins the parties; opened by the subclass, closed on exit.
        shows: what the untrusted party sees.

    Attributes:
        draw: number of the randomness of the request at hand. Whatever a defense draws for a request hangs on its seed
            and on this alone, so that the same draw can be timed, recorded and scored; one-time masks are the
            exception, which nothing may draw twice.
        wrapper: public tokens around the user's in the prompt at hand: nothing has to hide them.
    """

    def __init__(self, bundle: Bundle, boundary: Boundary, client: Client, shows: frozenset[Observable]) -> None:
        self.draw = -1
        self.wrapper = BARE
        self.bundle = bundle
        self.boundary = boundary
        self.shows = shows
        self.client = client

    @abstractmethod
    def _request(self, ids: Sequence[int], max_new_tokens: int, forced: Sequence[int] | None) -> list[Tensor]:
        """Run one request; the client collects the tokens.

        Args:
            ids: the prompt.
            max_new_tokens: how many tokens to generate at most.
            forced: continuation to teacher-force through the measurement tap, or None.

        Returns:
            With ``forced``, the logits ``[vocab]`` that predict each of its tokens (``self.tapped()`` has those of the
            untrusted party); else nothing.
        """

    @abstractmethod
    def memory(self) -> Memory:
        """Bytes held now."""

    def generate(self, prompt: Prompt, max_new_tokens: int, draw: int | None = None) -> Generation:
        """Serve one request greedily.

        Args:
            prompt: what is asked.
            max_new_tokens: how many tokens to generate at most.
            draw: number of the randomness it takes; None takes the one after the last request's.

        Raises:
            PromptError: for an empty prompt or one that does not fit the context.
            RefusedError: for a prompt that the defense will not serve; the next one it may.
        """
        self.bundle.check_prompt(len(prompt.ids), max_new_tokens)
        self.bundle.check_ids(torch.tensor(prompt.ids))
        self.wrapper = prompt.wrapper
        self._begin(draw)
        began = time.perf_counter()
        self._request(prompt.ids, max_new_tokens, None)
        times = self.client.times
        length = len(prompt.ids) if Observable.LENGTH in self.shows else None
        self.boundary.publish(length=length, outputs=self.outputs, wrapper=prompt.wrapper)
        return Generation(tuple(self.client.ids), times[0] - began, times[-1] - began, dict(self.waits))

    def warm_up(self, prompt: Prompt, max_new_tokens: int, draw: int | None = None) -> None:
        """Serve a request for the machine's caches alone: it makes no later request cheaper by what it drew.

        Raises:
            PromptError: as ``generate``.
            RefusedError: as ``generate``, but not for what only drawing would tell.
        """
        self.generate(prompt, max_new_tokens, draw)

    def score(
        self, prompt_ids: Sequence[int], continuation: Sequence[int], draw: int | None = None, wrapper: Wrapper = BARE
    ) -> Tensor:
        """Logits ``[len(continuation), vocab]`` of a teacher-forced continuation, through the measurement tap.

        Args:
            prompt_ids: what is asked.
            continuation: the tokens after it.
            draw: as for ``generate``.
            wrapper: public tokens among those of the prompt.

        Raises:
            PromptError: as ``generate``.
        """
        self.bundle.check_prompt(len(prompt_ids), len(continuation))
        self.wrapper = wrapper
        self._begin(draw)
        forced = self._dictated(continuation)
        self.boundary.tap("arm", forced)
        try:
            logits = self._request(prompt_ids, len(forced), forced)
        finally:
            self.boundary.tap("arm", None)
        return torch.stack(logits).float().cpu()

    @property
    def facts(self) -> Mapping[str, float]:
        """What the trusted party says of the last request besides its answer, for the record: metrics by name."""
        return {}

    @property
    def waits(self) -> Mapping[str, float]:
        """What took a part of the last request's time to the first token: milliseconds by metric."""
        return {}

    @property
    def outputs(self) -> tuple[tuple[int, ...], ...]:
        """Generated tokens of every stream, as the untrusted party knows them."""
        return (tuple(self.client.ids),)

    def tapped(self) -> list[Tensor]:
        """What the measurement tap at the untrusted party has kept since it was armed."""
        kept: list[Tensor] = self.boundary.tap("tapped")
        return kept

    def _dictated(self, continuation: Sequence[int]) -> Sequence[int]:
        """A continuation in the tokens that the untrusted party makes."""
        return continuation

    def _begin(self, draw: int | None = None) -> None:
        self.draw = self.draw + 1 if draw is None else draw
        self.client.restart()
        self.boundary.begin()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.boundary.close()


@dataclass(frozen=True, repr=False)
class PublicText:
    """Public text of the same kind as what is protected, never that itself; token ids.

    Attributes:
        corpus: documents like the prompts, or like whatever else is served.
        task: texts like the task's to tune on, where there is any.
    """

    corpus: Sequence[Sequence[int]] = ()
    task: Sequence[Sequence[int]] = ()


NO_TEXT = PublicText()


@dataclass(frozen=True, repr=False, eq=False, kw_only=True)
class Prepared(ABC):
    """What is served, shown and promised, before anything private is sent.

    Attributes:
        bundle: the user's model, never modified.
        public: the model as the untrusted party holds it.
        base: the public model that the served one was made from, the same where nothing was changed; None where the
            weights are the secret, so that no ancestor of theirs is known.
        parameters: the public parameters (Kerckhoffs), frozen dataclasses: all of the configuration, none of the
            randomness.
        guarantee: what is promised; None is an honest value.
        shows: what the untrusted party sees.
        seed: of the defense's own randomness.
    """

    bundle: Bundle
    public: Bundle
    base: Bundle | None
    parameters: tuple[object, ...] = ()
    guarantee: Guarantee | None = None
    shows: frozenset[Observable]
    seed: int = 0

    @abstractmethod
    def deploy(self, boundary: Boundary) -> Deployment:
        """Start the two parties; each deployment draws the same randomness from the seed.

        Args:
            boundary: joins them.

        Raises:
            ConfigError: where there is nothing to serve prompts with.
        """

    def stage(self, prompts: Sequence[Prompt]) -> Sequence[Prompt]:
        """The evaluation prompts as the claim supposes them; most suppose nothing and leave them."""
        return prompts

    def published(self) -> dict[str, object]:
        """The public parameters by name, as a record keeps them."""
        return {
            one.name: getattr(parameters, one.name)
            for parameters in self.parameters
            for one in fields(parameters)  # type: ignore[arg-type]
        }


class Defense(ABC):
    """A configuration, which holds no state; what it comes to for a model is :class:`Prepared`.

    When a change may change its numbers, its YAML's ``version`` is raised.
    """

    @property
    @abstractmethod
    def shows(self) -> frozenset[Observable]:
        """What the untrusted party sees of prompts that are served."""

    @abstractmethod
    def prepare(
        self, bundle: Bundle, public_text: PublicText = NO_TEXT, seed: int = 0, folder: Path | None = None
    ) -> Prepared:
        """Do all that can be done before anything private is sent.

        Args:
            bundle: the user's model; never modified.
            public_text: what the defense may measure or train on.
            seed: for the defense's own randomness.
            folder: where a long phase keeps its state, so that one that was killed goes on with equal results; None
                keeps nothing on disk.

        Raises:
            ConfigError: for options that this model or text rules out.
            UnsupportedModelError: for a family that the defense cannot serve.
        """


class Provider(Untrusted):
    """An untrusted party that generates: greedy choice, or the tap's forced continuation.

    Args:
        channel: its end of the boundary.
        end_ids: tokens, any of which ends a generation.
    """

    def __init__(self, channel: Channel, end_ids: Collection[int]) -> None:
        super().__init__()
        self.channel = channel
        self.end_ids = end_ids

    def choose(self, logits: Tensor) -> int:
        """The next token for logits ``[vocab]``.

        Raises:
            ProtocolError: when the forced continuation has ended, or has a token that the model does not have.
        """
        if self.forced is not None:
            self.keep(logits)
            token = self.forced[len(self.logits) - 1]
            if token >= logits.shape[-1]:
                raise ProtocolError("the forced continuation has a token that the model does not have")
            return token
        return int(logits.argmax())

    def ended(self, token: int) -> bool:
        """Whether this token ends the generation (a forced continuation never ends early)."""
        return self.forced is None and token in self.end_ids
