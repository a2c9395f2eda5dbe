"""Exact matching of hidden states that no noise hides: which token gives the state that was seen?

Candidates come in the order of what is cheap to know: how much the state looks like them through a linear lens, and
what the language model expects. A lens names most tokens by itself, so that several positions are tried at once and the
longest stretch that fits is taken, as speculative decoding does with a draft (arXiv 2211.17192). Whatever proposes a
token, it is the state of all blocks that accepts it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from attacks.twin_tokens import twins
from smd_research.core.guess import Guess
from smd_research.mechanisms.releases import Release
from smd_research.models.bundle import Bundle
from smd_research.models.extension import Extension, ExtensionEngine, LanguagePrior, Prefix
from smd_research.models.token_lens import TokenLens

RANKED = 10

ALIKE = 4
"""Candidates of each position of a chain: the one that the lens names, and others that a match must stand out from."""

NATS = 50.0
"""Log probability that a cosine of one is worth, where lens and language model order candidates together."""


@dataclass(frozen=True)
class _Match:
    """The best candidate of a batch, with the row it matches and the runner-up; distances are relative to the row."""

    token: int
    row: int
    distance: float
    second: float
    found: Extension
    index: int
    ranked: tuple[tuple[float, int], ...]

    def beside(self, other: "_Match") -> "_Match":
        """The best candidate of two batches."""
        ranked = tuple(sorted({*self.ranked, *other.ranked}))[:RANKED]
        nearer = self if self.distance <= other.distance else other
        return _Match(nearer.token, nearer.row, nearer.distance, ranked[1][0], nearer.found, nearer.index, ranked)


@dataclass(frozen=True)
class Matching:
    """When a state counts as another one.

    Attributes:
        release: what the client sends of its states.
        rounding: largest relative distance that rounding explains.
        gap: a match's distance is below this share of the next best one's.
        sort: features are in a secret order: values are compared sorted.
        permuted: rows are in a secret order: a state may stand in any that is not taken.
    """

    release: Release
    rounding: float
    gap: float
    sort: bool
    permuted: bool

    def accepts(self, match: _Match) -> bool:
        """Whether no other candidate has to be tried."""
        return match.distance < min(self.gap * match.second, self.rounding)

    def nearest(self, found: Extension, batch: Tensor, seen: Tensor, rows: Tensor) -> _Match:
        """The candidate of ``batch [c]`` nearest to one of the rows ``seen [r, width]``, whose numbers are ``rows``."""
        candidates = self.release.centre(found.hidden.float())
        if self.sort:
            candidates = candidates.sort(-1).values
        distances = torch.cdist(candidates, seen, compute_mode="donot_use_mm_for_euclid_dist")
        per_token, row = (distances / seen.norm(dim=-1).clamp_min(1e-30)).min(1)
        values, indices = per_token.topk(min(RANKED, len(batch)), largest=False)
        ranked = tuple(zip(values.tolist(), batch[indices].tolist(), strict=True))
        index = int(indices[0])
        second = ranked[1][0] if len(ranked) > 1 else float("inf")
        return _Match(int(batch[index]), int(rows[row[index]]), ranked[0][0], second, found, index, ranked)


class _Expected:
    """Candidates of the next position: what the language model and the lens make of it.

    Args:
        bundle: the public model.
        states: as they were seen ``[n, width]``.
        lens: None where states are not comparable to any it was fitted to.

    The likeness of all states and tokens is held: ``4 * n * vocab`` bytes, 50 MB for 256 tokens of 49,152.
    """

    def __init__(self, bundle: Bundle, states: Tensor, lens: TokenLens | None) -> None:
        self._bundle, self._states, self._lens = bundle, states, lens
        self._prior = LanguagePrior(bundle)
        self._later = lens.likeness(states, first=False) if lens else torch.empty(0)

    def alike(self, position: int) -> Tensor:
        """The ``ALIKE`` tokens that the row of a position looks most like."""
        return self._likeness(position, torch.tensor([position], device=self._states.device)).topk(ALIKE).indices

    def order(self, ids: list[int], rows: Tensor) -> Tensor:
        """All tokens, those first that are most likely to follow ``ids`` as one of some rows."""
        expected = self._log_prior(ids)
        if self._lens is not None:
            expected = expected + NATS * self._likeness(len(ids), rows)
        return expected.argsort(descending=True, stable=True)

    def _likeness(self, position: int, rows: Tensor) -> Tensor:
        """How much each token is what the likest of some rows looks like at a position ``[vocab]``."""
        assert self._lens is not None
        likeness = self._later[rows] if position else self._lens.likeness(self._states[rows], first=True)
        return likeness.amax(0)

    def _log_prior(self, ids: list[int]) -> Tensor:
        """Log probabilities ``[vocab]``; of a text's first token it is only known that special ones usually open it."""
        vocab, device = self._bundle.geometry.vocab, self._bundle.device
        if ids:
            return self._prior.feed(torch.tensor([ids[self._prior.length :]], device=device))[0, :vocab]
        special = [i for i in self._bundle.special_ids if i < vocab]
        opening = torch.zeros(vocab, device=device)
        opening[special] = 2 * NATS
        return opening


class _Reading:
    """What is read so far.

    Args:
        engine: of the prefix.
        rows: how many there are to read.
    """

    def __init__(self, engine: ExtensionEngine, rows: int) -> None:
        self._engine = engine
        self.prefix = engine.start()
        self.unused = torch.arange(rows)
        self.ids: list[int] = []
        self.ranked: list[tuple[int, ...]] = []
        self.worst = 0.0

    def take(self, match: _Match) -> None:
        """Go on with a match."""
        self._engine.advance(self.prefix, match.token, match.found, match.index)
        self.unused = self.unused[self.unused != match.row]
        self.ids.append(match.token)
        self.ranked.append(tuple(token for _, token in match.ranked))
        self.worst = max(self.worst, match.distance)


class ExactStateSearch:
    """Greedy matching of one view, left to right.

    Args:
        bundle: the public model.
        engine: truncated at the observed layer.
        matching: when a candidate is taken.
        proposals: candidates tried first: of one position, or of the next ones together.
        lens: fitted to what is seen; None where nothing is that it could be fitted to.
    """

    def __init__(
        self, bundle: Bundle, engine: ExtensionEngine, matching: Matching, proposals: int, lens: TokenLens | None
    ) -> None:
        self._bundle = bundle
        self._engine = engine
        self._matching = matching
        self._proposals = proposals
        self._lens = lens

    def recover(self, states: Tensor, known: Mapping[int, int]) -> Guess:
        """The tokens whose states ``[n, width]`` were seen, given those of some positions."""
        reading, expected = _Reading(self._engine, len(states)), _Expected(self._bundle, states, self._lens)
        while (position := len(reading.ids)) < len(states):
            if self._lens is not None and not self._matching.permuted:
                if self._along(reading, expected, states, known):
                    continue
                position = len(reading.ids)
            rows = reading.unused if self._matching.permuted else torch.tensor([position])
            rows = rows.to(states.device)
            if position in known:
                order = torch.tensor([known[position]], device=states.device)
            else:
                order = expected.order(reading.ids, rows)
            reading.take(self._tried(reading.prefix, order, states, rows))
        rounding, read = self._matching.rounding, [token for at, token in enumerate(reading.ids) if at not in known]
        return Guess(
            tuple(reading.ids),
            tuple(reading.ranked),
            reading.worst < rounding and not twins(self._bundle.embedding, read, rounding),
            reading.worst,
            self._engine.spent,
        )

    def _along(self, reading: _Reading, expected: _Expected, states: Tensor, known: Mapping[int, int]) -> bool:
        """Read the next positions as far as what the lens names fits; whether another chain may go on from there."""
        start = len(reading.ids)
        places = range(start, min(start + max(1, self._proposals // ALIKE), len(states)))
        proposed = [
            torch.tensor([known[place]], device=states.device) if place in known else expected.alike(place)
            for place in places
        ]
        for place, batch, found in zip(places, proposed, self._engine.chain(reading.prefix, proposed), strict=True):
            row = torch.tensor([place], device=states.device)
            match = self._matching.nearest(found, batch, states[row], row)
            if place not in known and not self._matching.accepts(match):
                return False
            reading.take(match)
            if match.index:
                break  # what follows was computed after another token
        return True

    def _tried(self, prefix: Prefix, order: Tensor, states: Tensor, rows: Tensor) -> _Match:
        """The first of all candidates that is accepted, or the nearest."""
        best: _Match | None = None
        for batch in self._engine.in_batches(order, self._proposals):
            match = self._matching.nearest(self._engine.extend(prefix, batch), batch, states[rows], rows)
            best = match if best is None else best.beside(match)
            if self._matching.accepts(best):
                break
        assert best is not None
        return best
