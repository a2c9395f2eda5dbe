"""Partial-attention inversion of secure multi-party decoding: the prompt, from queries and replies alone.

The vault answers each query with the row maximum, the exponential sum and the average value over the prompt's keys. At
layer 0 keys and values depend on nothing but token and position, so every reply is a known function of one unknown
token a position (arXiv 2409.19134, Theorem 1, read backwards). The provider reads the prompt off; it sends nothing that
the protocol does not make it send. Where the first layers run in the vault, the lowest layer outside is read from left
to right.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from attacks.base import PromptAttack, Public
from attacks.baselines.random import public_length
from attacks.prompts.partial_attention_inversion.left_to_right import LeftReading, LeftToRight
from attacks.prompts.partial_attention_inversion.measurements import Disturbance, LayerTable, Measurements, grouped
from attacks.prompts.partial_attention_inversion.replay import Exchange, Replay, mend
from attacks.prompts.partial_attention_inversion.row_space import RowSpace, deviation
from attacks.prompts.partial_attention_inversion.search import Effort
from attacks.prompts.partial_attention_inversion.solver import Prior, Solution, solve
from attacks.prompts.partial_attention_inversion.stages import Stages
from attacks.prompts.partial_attention_inversion.unmerging import Own, Unmerged, unmerged
from attacks.transcript import Exchanges, Merges, answered, first_request
from attacks.twin_tokens import twins
from smd_research.boundary import AdversaryView
from smd_research.boundary.messages import StartDecode
from smd_research.core.errors import NotApplicableError
from smd_research.core.guess import Guess, Spent
from smd_research.core.observable import Observable
from smd_research.mechanisms.attention.reply_noise import (
    ReplyNoise,
    ReplyNoiseParameters,
    ReplyRoundingParameters,
)
from smd_research.models.bundle import Bundle
from smd_research.models.calibration import calibrate
from smd_research.models.extension import ExtensionEngine
from smd_research.models.rotation import rotation_of

_ALIKE = 1e-2  # relative difference of embeddings at which a replay is asked whether it tells two tokens apart
_KEPT_BYTES = 2**29  # of tables of the whole vocabulary, one a position, that one prompt's search keeps


class PartialAttentionInversion(PromptAttack):
    """Row space, exact deductions, peeling, whitened pursuit, certificate; or the row space from left to right.

    Args:
        shortlist: most candidates kept at one position.
        equations: most scalar equations drawn for one round of a whitened detection.
        work: multiply-adds that one such round may take; fewer equations are drawn for more candidates.
        rounds: detections and refutations of one start, the anytime budget.
        sweeps: coordinate and pair sweeps over one complete assignment.
        restarts: further starts when the measurements stay unexplained.
        prior_weight: weight of the language model in a restart; 0 leaves it out.
        ranked: candidates reported at each position.
        alternatives: tokens of one doubtful position that are held against the layers above the first.
        replays: most guesses prefilled for that.
        proposals: tokens looked at for one position where the first layers run in the vault, the likeliest first.
    """

    needs = frozenset({Observable.QUERIES})

    def __init__(
        self,
        shortlist: int = 8192,
        equations: int = 16384,
        work: float = 1e11,
        rounds: int = 6,
        sweeps: int = 12,
        restarts: int = 3,
        prior_weight: float = 1.0,
        ranked: int = 10,
        alternatives: int = 64,
        replays: int = 256,
        proposals: int = 65536,
    ) -> None:
        self._alternatives, self._replays, self._proposals = alternatives, replays, proposals
        self._effort = Effort(shortlist, equations, work, rounds, sweeps, restarts, prior_weight, ranked)

    def fit(self, public: Public) -> None:
        """Build the layer-0 tables of the vocabulary."""
        super().fit(public)
        self._engine = ExtensionEngine(public.bundle, 1)
        self._base = self._engine.layer0(0)
        self._readers: dict[int, LeftToRight] = {}

    @torch.inference_mode()
    def recover(self, view: AdversaryView, rng: np.random.Generator) -> Guess:
        length = public_length(view)
        if view.streams > 1:  # which one is real is another question (pick_stream); here any will do
            view = view.stream(int(rng.integers(view.streams)))
        view = first_request(view)
        layers = answered(view)
        if not layers:  # the first token ended the text: the provider was never asked to decode
            return Guess((-1,) * length, certified=False)
        public = [token for start in view.of(StartDecode)[:1] for token in start.public.tolist()]
        noise = _disturbances(self.public)
        replay = Replay(
            self.public.bundle, {layer: Exchange(seen, noise(layer)) for layer, seen in layers.items()}, tuple(public)
        )
        lowest = min(layers)
        measured = self._measurements(layers[lowest], len(public), noise(lowest))
        if lowest:
            return self._above(lowest, _space(layers[lowest], measured), replay, length, view.wrapper.tail)
        known = {place - len(public): token for place, token in view.wrapper.known(length).items()}
        table = _table(self._engine)
        without: Unmerged | None = Unmerged(measured)
        if isinstance(merged := layers[0], Merges):
            own = Own(grouped(merged.own.a, len(measured.average)), torch.tensor(view.output_ids), length)
            without = unmerged(measured, own, table, length - len(public))
        if without is None:
            return Guess((*public, *(-1 for _ in range(length - len(public)))), certified=False)
        solution = solve(
            without.seen,
            table,
            length - len(public),
            rng,
            known={place: token for place, token in known.items() if place >= 0},
            prior=_prior(self.public.bundle, public) if self._effort.prior_weight else None,
            effort=self._effort,
            read=without.spanned,
        )
        return self._verified(solution, replay, public)

    def _above(self, layer: int, space: RowSpace, replay: Replay, length: int, behind: Sequence[int]) -> Guess:
        """A prompt read where the first layers run in the vault, held against all layers above.

        The tokens ``behind`` what the user wrote are public, and not looked for.
        """
        public, stages = list(replay.public), Stages()
        with stages.timed("left_to_right"):
            reader = self._readers.setdefault(
                layer, LeftToRight(self.public.bundle, layer, self._proposals, self._effort.ranked)
            )
            before = reader.spent
            own = length - len(public) - len(behind)
            reading = reader.read(space, own, public) if space.rank else LeftReading()
        stages.named("left_to_right", sum(reading.found))
        missing = own - len(reading.ids)
        whole = not missing
        error = float(replay.errors([[*reading.ids, *behind]])[0, 0]) if whole else math.inf
        alone = whole and error <= 1 and all(reading.found) and self._stands_alone(replay, reading, behind)
        spent = reader.spent
        return Guess(
            ids=(*public, *reading.ids, *(-1 for _ in range(missing)), *behind),
            ranked=(*_alone(public), *reading.ranked, *(() for _ in range(missing)), *_alone(behind)),
            certified=alone,
            residual=error if whole else None,
            spent=Spent(spent.candidates - before.candidates, spent.flops - before.flops) + replay.spent,
            exhausted=not whole and self._proposals < self.public.bundle.geometry.vocab,
            facts=stages.facts,
        )

    def _stands_alone(self, replay: Replay, reading: LeftReading, behind: Sequence[int]) -> bool:
        """Whether nothing that could be taken for a token that was read reproduces the replies as well.

        That is a twin of it, and, where a replay tells little, the token that lay next to the span.
        """
        alike = twins(self.public.bundle.embedding, reading.ids, _ALIKE)
        others: list[list[int]] = []
        for place, (token, ranked) in enumerate(zip(reading.ids, reading.ranked, strict=True)):
            doubts = {*alike.get(token, ()), *(ranked[1:2] if replay.coarse else ())}
            if len(doubts) > self._alternatives:
                return False
            others += [[*reading.ids[:place], other, *reading.ids[place + 1 :], *behind] for other in sorted(doubts)]
        return not others or bool((replay.errors(others)[:, 0] > 1).all())

    def _verified(self, solution: Solution, replay: Replay, public: list[int]) -> Guess:
        """The solution held against the layers above, and mended where it can be."""
        doubts = solution.doubts if len(replay.exchanges) > 1 else {}
        options = {position: tokens[: self._alternatives] for position, tokens in doubts.items()}
        ids, error = mend(replay, solution.ids, options, self._replays)
        explained = error <= 1
        certified = explained and solution.explained and self._settled(solution, replay, ids)
        ranked = tuple((own, *(t for t in row if t != own)) for own, row in zip(ids, solution.ranked, strict=True))
        spent = Spent(candidates=solution.candidates, flops=solution.flops, steps=solution.rounds)
        return Guess(
            ids=(*public, *ids),
            ranked=(*_alone(public), *ranked),
            certified=certified,
            residual=max(error, 0.0 if tuple(ids) != solution.ids else solution.residual),
            spent=spent + replay.spent,
            exhausted=solution.exhausted and not explained,
            facts=solution.stages.facts,
        )

    def _settled(self, solution: Solution, replay: Replay, ids: list[int]) -> bool:
        """Whether each token, and each exchange of two, that layer 0 would take as well is refuted above it."""
        exchanges = solution.exchanges
        if len(exchanges) > self._alternatives or (exchanges and not bool((replay.errors(exchanges)[:, 0] > 1).all())):
            return False
        return all(
            len(tokens) <= self._alternatives and _refuted(replay, ids, position, tokens)
            for position, tokens in solution.doubts.items()
        )

    def _measurements(self, seen: Exchanges | Merges, first: int, disturbance: Disturbance) -> Measurements:
        """What a layer's replies measure; where the vault merged, merged rows with the own side's log weight."""
        weights = seen.own if isinstance(seen, Merges) else seen
        return Measurements.from_steps(
            seen.q,
            weights.m,
            weights.g,
            seen.a,
            positions=seen.positions,
            kv_heads=self._base.k.shape[1],
            spec=self._base.spec,
            computed_in=self.public.bundle.dtype,
            first=first,
            disturbance=disturbance,
            summed=isinstance(seen, Merges) or seen.summed,
        )


def _space(seen: Exchanges | Merges, measured: Measurements) -> RowSpace:
    """What a layer's replies span, beside the own attention where the vault merged them with it."""
    beside = grouped(seen.own.a, len(measured.average)) if isinstance(seen, Merges) else None
    return RowSpace.of(measured.average, deviation(measured), beside)


def _disturbances(public: Public) -> Callable[[int], Disturbance]:
    """What the vault adds to a layer's replies, by its public parameters; noise is sized on public text."""
    noise, rounded = public.published(ReplyNoiseParameters), public.published(ReplyRoundingParameters)
    multiplier, log_weight = (noise.noise_multiplier, noise.noise_log_weight) if noise else (0.0, 0.0)
    rounding = 2.0**-rounded.reply_bits if rounded else 0.0
    if not multiplier:
        return lambda _: Disturbance(0.0, log_weight, rounding)
    if not public.corpus:
        raise NotApplicableError("the size of the vault's noise is set on public text, and there is none")
    norms = calibrate(public.bundle, public.corpus).value_norm
    sizes = ReplyNoise(multiplier, log_weight, norms, norms)
    return lambda layer: Disturbance(sizes.sigma(layer, public.bundle.geometry.heads), log_weight, rounding)


def _alone(known: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """The one candidate of each position that is known."""
    return ((token,) for token in known)


def _refuted(replay: Replay, ids: Sequence[int], position: int, tokens: Sequence[int]) -> bool:
    """Whether no other token at a position reproduces the replies of all layers."""
    others = [[*ids[:position], token, *ids[position + 1 :]] for token in tokens if token != ids[position]]
    return not others or bool((replay.errors(others)[:, 0] > 1).all())


def _table(engine: ExtensionEngine) -> LayerTable:
    """Layer-0 keys and values at a position: one table turned, or one table a position (learned positions)."""
    shape = engine.bundle.geometry
    whole = 8 * shape.vocab * shape.kv_heads * shape.head_dim

    def at(position: int, tokens: Tensor | None) -> tuple[Tensor, Tensor]:
        keys, values = engine.layer0_keys(position, tokens)
        return keys.cpu(), values.float().cpu()

    if engine.one_table:
        rotation = rotation_of(engine.bundle, 1)
        return LayerTable(at, shape.vocab, back=lambda q, position: rotation.back(0, q, torch.tensor([position])))

    if (learned := engine.learned) is not None:
        return LayerTable(at, shape.vocab, alike=False, rough=learned)

    @lru_cache(max(1, _KEPT_BYTES // whole))
    def of_all(position: int) -> tuple[Tensor, Tensor]:
        return at(position, None)

    def kept(position: int, tokens: Tensor | None) -> tuple[Tensor, Tensor]:
        return of_all(position) if tokens is None else at(position, tokens)

    return LayerTable(kept, shape.vocab, alike=False)


def _prior(bundle: Bundle, public: Sequence[int]) -> Prior:
    """The public model's log-probability of every token at each position, given the guess before it."""

    def score(ids: Sequence[int]) -> Tensor:
        logits = bundle.model(torch.tensor([[*public, *ids]], device=bundle.device)).logits[0].float().cpu()
        logs = torch.log_softmax(logits, -1)
        uniform = torch.full_like(logs[:1], -math.log(logs.shape[1]))
        return torch.cat([uniform, logs[:-1]])[len(public) :]

    return score
