"""Active queries: the provider's role is played by someone who chooses what to ask.

Secure multi-party decoding answers any query. A provider that only *seems* to decode asks, between honest steps, for
what it wants to know: layer-0 queries that leave one key of the prompt with all the weight (arXiv 2409.19134, v5,
section on security: attention hides its inputs "unless the query matrix is adversarially selected"). The user gets the
tokens of the honest decode and sees nothing odd but a little more traffic.

Where the vault merges, every honest query of layer 0 is asked twice, the second time with an own attention that weighs
nothing: what comes back is the attention over the prompt alone, and the passive inversion does the rest.

Where the vault adds noise, drawn anew for each reply, an honest query of layer 0 is asked again and again
(``repeats``): its answers are averaged, and the passive inversion reads them, with less noise.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from attacks.base import PromptAttack, Public
from attacks.baselines.random import public_length
from attacks.impersonation import Impersonation
from attacks.prompts.active_queries.averaging import averaged, less_noise
from attacks.prompts.active_queries.probing import Isolated, LayerZero, aim, last_one, read
from attacks.prompts.partial_attention_inversion.attack import PartialAttentionInversion
from attacks.prompts.partial_attention_inversion.unmerging import WEIGHTLESS
from attacks.transcript import Exchanges, exchanges, merges, public_prefix, shard_of
from smd_research.boundary import AdversaryView, Channel
from smd_research.boundary.messages import (
    MergeQuery,
    Message,
    PartialAttention,
    Query,
    StartDecode,
    SummedAttention,
    Tokens,
)
from smd_research.boundary.process import UntrustedFactory
from smd_research.boundary.session import Impostor
from smd_research.core.errors import ConfigError, NotApplicableError
from smd_research.core.guess import Guess, Spent
from smd_research.core.observable import Observable
from smd_research.core.seeds import generator
from smd_research.mechanisms.attention.exchange import ExchangeParameters, MergePlace
from smd_research.mechanisms.attention.query_audit import AuditLevel, AuditParameters, NormBound, SpreadBound
from smd_research.models.bundle import Bundle
from smd_research.models.calibration import calibrate
from smd_research.models.sources import DTYPES

_WITHIN = 0.98  # of a bound: a 16-bit wire rounds too


class ActiveQueries(PromptAttack):
    """Reads a prompt by chosen queries.

    The budget is in queries beyond those of an honest decode. With ``stealth`` there are none beyond: chosen queries
    stand in for the honest ones of layer 0, on schedule (the tokens until the prompt is read are then a little odd).

    Args:
        queries: budget for a request.
        per_token: most queries asked between two tokens.
        norm: Euclidean norm of a chosen query.
        stealth: what an audit looks at and the impostor keeps to: ``none``, ``schedule``, ``norm`` or ``rank``, each
            with those before.
        fallback: where chosen queries did not read everything, give all answers to the passive inversion.
        repeats: how often each honest query of layer 0 is asked again, in place of chosen ones, while the budget lasts.

    Raises:
        ConfigError: for a number out of range, or queries asked again by an impostor that keeps to a schedule.
    """

    needs: ClassVar[frozenset[Observable]] = frozenset({Observable.QUERIES})

    def __init__(
        self,
        queries: int = 128,
        per_token: int = 16,
        norm: float = 1e4,
        stealth: str = "none",
        fallback: bool = True,
        repeats: int = 0,
    ) -> None:
        for name, value in (("queries", queries), ("per_token", per_token)):
            if value < 1:
                raise ConfigError(f"attack.{name}={value} is out of range: give at least 1")
        if not 0 < norm < 6e4:
            raise ConfigError(f"attack.norm={norm:g} is out of range: use more than 0 and less than 6e4 (fp16)")
        if stealth not in list(AuditLevel):
            raise ConfigError(f"attack.stealth={stealth} is unknown: use one of {', '.join(AuditLevel)}")
        if repeats < 0:
            raise ConfigError(f"attack.repeats={repeats} is out of range: give 0 or more")
        if repeats and stealth != AuditLevel.NONE:
            raise ConfigError(
                f"attack.repeats={repeats} breaks the schedule that attack.stealth={stealth} keeps: give 0"
            )
        self._queries = queries
        self._per_token = per_token
        self._norm = norm
        self._stealth = stealth
        self._fallback = fallback
        self._repeats = min(repeats, queries)

    def fit(self, public: Public) -> None:
        """Take in public knowledge.

        Raises:
            NotApplicableError: where layer 0 is decoded in the vault.
        """
        _check(public)
        super().fit(public)
        self._layer = LayerZero(public.bundle)
        self._passive = PartialAttentionInversion()
        if self._fallback or self._repeats or _merged_there(public):
            self._passive.fit(less_noise(public, 1 + self._repeats))

    def impostor(self, public: Public) -> Impostor:
        _check(public)
        bounds: tuple[NormBound | SpreadBound, ...] = ()
        if self._stealth in (AuditLevel.NORM, AuditLevel.RANK):
            audit = public.published(AuditParameters)
            slack = (audit.audit_slack if audit else 1.0) * _WITHIN
            queries = calibrate(public.bundle, public.corpus).queries[:1]
            bounds = (SpreadBound.of(queries, slack), NormBound.of(queries, slack))
            bounds = bounds if self._stealth == AuditLevel.RANK else bounds[1:]
        plan = QueryPlan(
            self._queries,
            self._per_token,
            self._norm,
            self._stealth != AuditLevel.NONE,
            bounds,
            DTYPES[public.parameters_of(ExchangeParameters).wire_dtype],
            _merged_there(public),
            self._repeats,
        )
        return partial(_instead, public.bundle, plan)

    @torch.inference_mode()
    def recover(self, view: AdversaryView, rng: np.random.Generator) -> Guess:
        length = public_length(view)
        alone = view if view.streams == 1 else view.stream(int(rng.integers(view.streams)))
        if self._repeats:
            return self._passive.recover(averaged(alone, 1 + self._repeats), rng)
        if merges(alone):
            return self._passive.recover(alone, rng)
        seen = exchanges(alone).get(0)
        if seen is None:
            return Guess((-1,) * length, certified=False)
        positions = range(public_prefix(alone), length)
        known = read(Isolated.among(seen, self._layer), self._layer, positions)
        missing = [p for p in positions if p not in known]
        proved = not missing
        if len(missing) == 1 and known:
            known[missing[0]], proved = last_one(seen, self._layer, known, missing[0])
        elif missing and self._fallback:
            return self._with(self._passive.recover(alone, rng), known)
        prefix = next(start.public.tolist() for start in alone.of(StartDecode))
        ids = (*prefix, *(known.get(p, -1) for p in positions))
        return Guess(ids, certified=proved, spent=Spent(candidates=len(seen.positions)))

    @staticmethod
    def _with(guess: Guess, known: dict[int, int]) -> Guess:
        """A passive guess, corrected where chosen queries read a token."""
        ids = tuple(known.get(p, token) for p, token in enumerate(guess.ids))
        ranked = tuple((known[p],) if p in known else tokens for p, tokens in enumerate(guess.ranked))
        return Guess(ids, ranked, guess.certified and ids == guess.ids, guess.residual, guess.spent, guess.exhausted)


def _check(public: Public) -> None:
    if public.parameters_of(ExchangeParameters).inner_layers:
        raise NotApplicableError("reads layer 0, whose queries the provider never sends where it runs in the vault")


def _merged_there(public: Public) -> bool:
    return public.parameters_of(ExchangeParameters).merge == MergePlace.VAULT


@dataclass(frozen=True)
class QueryPlan:
    """What an impostor asks, fixed before it sees a request.

    Attributes:
        queries: budget for a request, beyond those of an honest decode.
        per_token: most queries asked between two tokens.
        norm: Euclidean norm of a chosen query.
        stealth: chosen queries stand in for honest ones.
        bounds: of honest layer-0 queries, which the chosen ones keep.
        wire_dtype: in which queries cross.
        twins: the vault merges: what is asked are honest queries again, with an own attention of no weight.
        repeats: what is asked are honest queries again, so many times each.
    """

    queries: int
    per_token: int
    norm: float
    stealth: bool
    bounds: tuple[NormBound | SpreadBound, ...]
    wire_dtype: torch.dtype
    twins: bool = False
    repeats: int = 0


def _instead(bundle: Bundle, plan: QueryPlan, honest: UntrustedFactory) -> UntrustedFactory:
    return partial(QueryingProvider, bundle, plan, honest)


class QueryingProvider(Impersonation):
    """An honest provider with someone at its line, who asks queries of his own.

    Args:
        bundle: the public model.
        plan: what to ask.
        honest: makes the provider that decodes.
        channel: to the vault.
    """

    def __init__(self, bundle: Bundle, plan: QueryPlan, honest: UntrustedFactory, channel: Channel) -> None:
        super().__init__(honest(_Line(channel, self)))
        self._plan = plan
        self._layer = LayerZero(bundle)
        self._heads = bundle.geometry.heads
        self._channel = channel
        self._start: StartDecode | None = None
        self._known: list[dict[int, int]] = []
        self._spent = 0
        self._tokens = 0
        self._rng = generator(0, "active queries")

    def handle(self, message: Message) -> Message | None:
        if isinstance(message, StartDecode) and self.forced is None:
            self._start = message
            self._known = [{} for _ in message.first]
            self._spent = self._tokens = 0
            self._rng = generator(message.seed, "active queries", message.request)
            self.ask()
        return super().handle(message)

    def token_sent(self) -> None:
        """The user has another token: time to ask."""
        self._tokens += 1
        if self.forced is None:
            self.ask()

    @torch.inference_mode()
    def ask(self) -> None:
        """Ask until the share of this token, or the budget, or the prompt is exhausted."""
        if self._plan.stealth or self._plan.twins or self._plan.repeats or self._start is None:
            return
        for _ in range(min(self._plan.per_token, self._plan.queries - self._spent)):
            if self._all_read():
                return
            query = self._chosen(self._start.position + self._tokens)
            answer = self._channel.request(query)
            self._spent += 1
            if isinstance(answer, PartialAttention | SummedAttention):
                self._learn(query, answer)

    def beside(self, query: Query) -> None:
        """Ask an honest query of layer 0 again, while the budget lasts: as it is, or with nothing to merge."""
        if self.forced is not None or self._plan.stealth or query.layer:
            return
        left = self._plan.queries - self._spent
        again = [query] * min(self._plan.repeats, left)
        if isinstance(query, MergeQuery) and not self._plan.repeats and left:
            weightless = torch.full_like(query.log_weight, WEIGHTLESS)
            again = [replace(query, log_weight=weightless, a=torch.zeros_like(query.a))]
        self._spent += len(again)
        for asked in again:
            self._channel.request(asked)

    @torch.inference_mode()
    def disguised(self, query: Query) -> Query:
        """The query that crosses in place of an honest one, for an impostor that keeps to the schedule."""
        hides = self._plan.stealth and not self._plan.twins
        swapped = hides and query.layer == 0 and self.forced is None and not self._all_read()
        return self._chosen(query.position) if swapped else query

    def overheard(self, query: Query, answer: Message) -> None:
        """Learn from the answer to a disguised query."""
        if self._plan.stealth and query.layer == 0 and isinstance(answer, PartialAttention | SummedAttention):
            self._learn(query, answer)

    def _chosen(self, position: int) -> Query:
        assert self._start is not None
        q = torch.stack([self._direction(known) for known in self._known]) * self._plan.norm
        if self._plan.bounds:  # first as long as an honest one may be: what is drawn in keeps more of its direction
            q = self._plan.bounds[-1].within(q, 0)
        for bound in self._plan.bounds:
            q = bound.within(q, 0)
        return Query(q.to(self._plan.wire_dtype).cpu(), self._start.request, 0, position)

    def _direction(self, known: Mapping[int, int]) -> Tensor:
        positions = self._positions()
        if len(known) == len(positions):  # this stream is read, another is not
            known = {}
        return aim(self._layer, known, positions, self._heads, self._rng)

    def _learn(self, query: Query, answer: PartialAttention | SummedAttention) -> None:
        shard = shard_of(answer)
        for stream, known in enumerate(self._known):
            row = slice(stream, stream + 1)
            where = torch.tensor([query.position])
            seen = Exchanges(query.q[row], shard.m[row], shard.g[row], shard.a[row], where)
            open_ones = [p for p in self._positions() if p not in known]
            known |= read(Isolated.among(seen, self._layer), self._layer, open_ones)

    def _positions(self) -> range:
        assert self._start is not None
        return range(self._start.public.numel(), self._start.position)

    def _all_read(self) -> bool:
        """Whether every stream is read but for one token at most, which its answers then give away."""
        return all(len(known) >= len(self._positions()) - 1 for known in self._known)


class _Line(Channel):
    """The honest provider's channel, listened to."""

    def __init__(self, channel: Channel, listener: QueryingProvider) -> None:
        self._channel = channel
        self._listener = listener

    def notify(self, message: Message) -> None:
        self._channel.notify(message)
        if isinstance(message, Tokens):
            self._listener.token_sent()

    def post(self, message: Message) -> Callable[[], Message]:
        if not isinstance(message, Query):
            return self._channel.post(message)
        self._listener.beside(message)
        sent = self._listener.disguised(message)
        reply = self._channel.post(sent)

        def answer() -> Message:
            said = reply()
            if sent is not message:
                self._listener.overheard(sent, said)
            return said

        return answer
