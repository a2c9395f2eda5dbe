"""Partial-attention inversion of secure multi-party decoding: the prompt, from layer 0's queries and replies alone.

The vault answers each query with the row maximum, the exponential sum and the average value over the prompt's keys. At
layer 0 keys and values depend on nothing but token and position, so every reply is a known function of one unknown
token a position (arXiv 2409.19134, Theorem 1, read backwards). The provider reads the prompt off; it sends nothing that
the protocol does not make it send.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from attacks.base import Attack, Public
from attacks.random import public_length
from attacks.unmixing.measurements import Measurements, Table
from attacks.unmixing.search import Effort
from attacks.unmixing.solver import Prior, solve
from smd_research.boundary import AdversaryView
from smd_research.boundary.messages import PartialAttention, Query
from smd_research.core.guess import Guess, Spent
from smd_research.core.observable import Observable
from smd_research.models.bundle import Bundle, rotate
from smd_research.models.extension import ExtensionEngine


class PartialAttentionInversion(Attack):
    """Attention unmixing: exact deductions, whitened pursuit, refutation, polishing, certificate.

    Args:
        shortlist: most candidates kept at one position.
        equations: most scalar equations drawn for one round of a whitened detection.
        work: multiply-adds that one such round may take; fewer equations are drawn for more candidates.
        rounds: detections and refutations of one start, the anytime budget.
        sweeps: coordinate and pair sweeps over one complete assignment.
        restarts: further starts when the measurements stay unexplained.
        prior_weight: weight of the language model in a restart; 0 leaves it out.
        ranked: candidates reported at each position.
    """

    version = 2
    needs = frozenset({Observable.QUERIES, Observable.PARTIAL_ATTENTION})

    def __init__(
        self,
        shortlist: int = 8192,
        equations: int = 16384,
        work: float = 1e11,
        rounds: int = 24,
        sweeps: int = 12,
        restarts: int = 3,
        prior_weight: float = 1.0,
        ranked: int = 10,
    ) -> None:
        self._effort = Effort(shortlist, equations, work, rounds, sweeps, restarts, prior_weight, ranked)

    def fit(self, public: Public) -> None:
        """Build the layer-0 tables of the vocabulary."""
        super().fit(public)
        self._engine = ExtensionEngine(public.bundle, 1)
        self._base = self._engine.layer0(0)

    @torch.inference_mode()
    def recover(self, view: AdversaryView, rng: np.random.Generator) -> Guess:
        length = public_length(view)
        if view.streams > 1:  # which one is real is another question (pick_stream); here any will do
            view = view.stream(int(rng.integers(view.streams)))
        exchanges = _layer0(view)
        if not exchanges:  # the first token ended the text: the provider was never asked to decode
            return Guess((-1,) * length, certified=False)
        solution = solve(
            self._measurements(exchanges),
            _table(self._engine),
            length,
            rng,
            prior=_prior(self.public.bundle) if self._effort.prior_weight else None,
            effort=self._effort,
        )
        return Guess(
            ids=solution.ids,
            ranked=solution.ranked,
            certified=solution.certified,
            residual=solution.residual,
            spent=Spent(candidates=solution.candidates, flops=solution.flops, steps=solution.rounds),
            exhausted=solution.exhausted,
        )

    def _measurements(self, exchanges: Sequence[tuple[Query, PartialAttention]]) -> Measurements:
        spec, bundle = self._base.spec, self.public.bundle
        return Measurements.from_steps(
            torch.cat([query.q for query, _ in exchanges]),
            torch.cat([reply.m for _, reply in exchanges]),
            torch.cat([reply.g for _, reply in exchanges]),
            torch.cat([reply.a for _, reply in exchanges]),
            positions=torch.tensor([query.position for query, _ in exchanges]),
            kv_heads=bundle.geometry.kv_heads,
            scale=spec.scale,
            softcap=spec.softcap,
            window=spec.window,
            computed_in=bundle.dtype,
        )


def _layer0(view: AdversaryView) -> list[tuple[Query, PartialAttention]]:
    """Layer-0 queries of the first request with their answers; a query is answered before the next one is sent."""
    pairs, pending = [], None
    for _, message in view.messages:
        if isinstance(message, Query):
            if pairs and message.request != pairs[0][0].request:
                break
            pending = message
        elif isinstance(message, PartialAttention) and pending is not None:
            if pending.layer == 0:
                pairs.append((pending, message))
            pending = None
    return pairs


def _table(engine: ExtensionEngine) -> Table:
    """Layer-0 keys and values at a position: one rotated table, or one table a position (learned positions)."""
    base = engine.layer0(0)

    def at(position: int) -> tuple[Tensor, Tensor]:
        if not engine.has_rotary:
            table = engine.layer0(position)
            return table.k.cpu(), table.v.float().cpu()
        where = torch.full((1,), position, device=base.k.device)
        keys = rotate(engine.bundle.model, base.k.unsqueeze(-2), where).squeeze(-2)
        return keys.cpu(), base.v.float().cpu()

    return at


def _prior(bundle: Bundle) -> Prior:
    """The public model's log-probability of every token at each position, given the guess before it."""

    def score(ids: Sequence[int]) -> Tensor:
        logits = bundle.model(torch.tensor([ids], device=bundle.device)).logits[0].float().cpu()
        logs = torch.log_softmax(logits, -1)
        uniform = torch.full_like(logs[:1], -math.log(logs.shape[1]))
        return torch.cat([uniform, logs[:-1]])

    return score
