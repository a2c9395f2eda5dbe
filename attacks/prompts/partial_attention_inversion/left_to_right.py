"""Layers above the first: the row space read from left to right.

Where the first layers run in the vault, the lowest layer whose replies cross still spans the prompt's values there. A
value of layer ``l`` depends on the tokens up to its own, which are known when a prompt is read from left to right: the
extension engine says what every next token's value would be, and the one in the span is the next token. Candidates come
in the language model's order; where the text surprises, those come first whose values are expected in the span by what
the others' turned out to be.

A text that repeats its first token repeats its values too, at every layer, so that the repetition always lies in the
span: a value that has been read before counts only where no other token stands out.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from attacks.prompts.partial_attention_inversion.expectation import Expectation
from attacks.prompts.partial_attention_inversion.row_space import RowSpace
from smd_research.core.guess import Spent
from smd_research.models.bundle import Bundle
from smd_research.models.extension import ExtensionEngine, LanguagePrior, Prefix

_FIRST = 64  # candidates of the first batch, and of the first that is expected
_NEXT, _APART = 192, 256  # of the second: the next likely, and others of the whole vocabulary, for the fit's sake
_FITTED = 2048  # tokens that expectations are fitted to at most
_SAME = 1e-4  # relative difference of values that rounding explains
_OUTSTANDING = 8.0  # deviations that a token of a blurred span stands out of the others
_GAP = 2.0  # decimal orders a head that do as well, of the nearest to the next: attention sinks all lie near the span


@dataclass(frozen=True)
class LeftReading:
    """What was read from left to right.

    Attributes:
        ids: tokens, up to the first that was not found.
        ranked: candidates of each, nearest to the span first.
        found: whether each stood out.
    """

    ids: list[int] = field(default_factory=list)
    ranked: list[tuple[int, ...]] = field(default_factory=list)
    found: list[bool] = field(default_factory=list)


class LeftToRight:
    """Reads prompts at one layer above the first.

    Args:
        bundle: the public model.
        layer: the lowest layer whose replies cross.
        proposals: most candidates of one position.
        ranked: candidates kept of one position.
    """

    def __init__(self, bundle: Bundle, layer: int, proposals: int, ranked: int) -> None:
        self._engine = ExtensionEngine(bundle, layer)
        self._bundle, self._layer = bundle, layer
        self._proposals, self._ranked = proposals, ranked
        self._openings: dict[int, Tensor] = {}

    @cached_property
    def _expectation(self) -> Expectation:
        return Expectation(self._bundle, self._layer)

    @property
    def spent(self) -> Spent:
        """All candidates run, those of the states that expectations stand on with them."""
        expected: Expectation | None = self.__dict__.get("_expectation")
        return self._engine.spent if expected is None else self._engine.spent + expected.spent

    @torch.inference_mode()
    def read(self, space: RowSpace, length: int, public: list[int]) -> LeftReading:
        """Read a prompt.

        Args:
            space: what the layer's replies span.
            length: secret tokens.
            public: the tokens before them.

        Returns:
            The reading; where a sharp span holds no proposed token it ends, for nothing after a wrong token is right.
        """
        prefix, prior = self._engine.start(), LanguagePrior(self._bundle)
        logs = None if public else self._first_logs()
        for token in public:
            self._engine.advance(prefix, token)
            logs = _logs(prior, token, self._bundle)
        reading = LeftReading()
        values = torch.empty(0)
        for place in range(length):
            assert logs is not None
            best = self._nearest(_Tried(space, values), prefix, logs)
            if not best.found and space.sharp:
                break
            reading.ids.append(int(best.tokens[0]))
            reading.ranked.append(tuple(best.tokens.tolist()))
            reading.found.append(best.found)
            values = torch.cat([values, best.value[None]]) if len(values) else best.value[None]
            if place + 1 < length:
                self._engine.advance(prefix, reading.ids[-1])
                logs = _logs(prior, reading.ids[-1], self._bundle)
        return reading

    def _nearest(self, tried: "_Tried", prefix: Prefix, logs: Tensor) -> "_Nearest":
        """The candidates nearest to a span, looked for until one stands out whose value was not read before."""
        for batch in self._proposed(tried, logs):
            values = self._values(prefix, batch) if prefix.length else self._opening(batch)
            tried.add(batch, values)
            if tried.outstanding:
                break
        return tried.nearest(self._ranked)

    def _proposed(self, tried: "_Tried", logs: Tensor) -> Iterator[Tensor]:
        """Batches of candidates, the likeliest first; each must have been tried before the next is asked for."""
        most = min(self._proposals, len(logs))
        order = logs.argsort(descending=True)
        yield order[: min(_FIRST, most)]
        rest = order[_FIRST:most]
        if not len(rest):
            return
        apart = rest[_NEXT :: max(1, (len(rest) - _NEXT) // _APART)]
        yield torch.cat([rest[:_NEXT], apart])
        grouped, size = False, _FIRST  # what was tried as one group first, then by groups and the language model alone
        while len(tried.tokens) < most:
            if len(tried.tokens) < _FITTED:
                likely = self._expectation.log_likelihoods(tried.space, tried.tokens, tried.values, grouped)
                scores = torch.cat([logs + likely, logs[None]] if grouped else [logs + likely])
            scores[:, tried.tokens] = -math.inf
            left = most - len(tried.tokens)
            yield torch.unique(scores.topk(min(size, left)).indices)[:left]
            size, grouped = min(4 * size, self._engine.batch) if grouped else size, True

    def _values(self, prefix: Prefix, tokens: Tensor) -> Tensor:
        """Values ``[tokens, kv_heads, head_dim]`` after a prefix."""
        return self._engine.values(prefix, tokens.to(self._bundle.device)).float().cpu()

    def _opening(self, tokens: Tensor) -> Tensor:
        """Values after no prefix, which are the same for all prompts and kept."""
        new = torch.tensor([int(token) for token in tokens if int(token) not in self._openings], dtype=torch.long)
        if len(new):
            self._openings |= dict(zip(new.tolist(), self._values(self._engine.start(), new), strict=True))
        return torch.stack([self._openings[int(token)] for token in tokens])

    def _first_logs(self) -> Tensor:
        """The language model's log probabilities of a text's first token, where it knows how texts begin."""
        begin = self._bundle.tokenizer.bos_token_id
        if begin is None:
            return torch.zeros(self._bundle.geometry.vocab)
        return _logs(LanguagePrior(self._bundle), int(begin), self._bundle)


class _Tried:
    """Candidates of one position that were run.

    Args:
        space: that one is looked for in.
        before: values read at the positions before ``[read, kv_heads, head_dim]``.
    """

    def __init__(self, space: RowSpace, before: Tensor) -> None:
        self.space, self._before = space, before
        self.tokens, self.values = torch.empty(0, dtype=torch.long), torch.empty(0)
        self._away, self._told = torch.empty(0, dtype=torch.float64), torch.empty(0, dtype=torch.bool)

    def add(self, tokens: Tensor, values: Tensor) -> None:
        """Note further tokens' values."""
        self.values = torch.cat([self.values, values]) if len(self.values) else values
        self.tokens, self._away = torch.cat([self.tokens, tokens]), torch.cat([self._away, self.space.distance(values)])
        self._told = torch.cat([self._told, _among(values, self._before)])

    @property
    def outstanding(self) -> bool:
        """Whether one stands out whose value was not read before."""
        return _stands_out(self.space, self._away[~self._told])

    def nearest(self, most: int) -> "_Nearest":
        """The ``most`` nearest to the span; those whose value was read before count where no other stands out."""
        away = self._away.masked_fill(self._told, 0.0) if self.outstanding else self._away
        best = away.topk(min(most, len(away)), largest=False).indices
        return _Nearest(self.tokens[best], _stands_out(self.space, away), self.values[best[0]])


@dataclass(frozen=True)
class _Nearest:
    """Candidates of one position, nearest first, whether the first stands out, and its value."""

    tokens: Tensor
    found: bool
    value: Tensor


def _among(values: Tensor, before: Tensor) -> Tensor:
    """Which values ``[tokens, kv_heads, head_dim]`` equal one of those ``before``, to rounding ``[tokens]``."""
    told = torch.zeros(len(values), dtype=torch.bool)
    for one in before:
        told |= torch.linalg.vector_norm((values - one).flatten(1), dim=1) <= _SAME * torch.linalg.vector_norm(one)
    return told


def _stands_out(space: RowSpace, away: Tensor) -> bool:
    """Whether the nearest candidate lies in the span: as near as its weakest direction allows, and far from others."""
    others = away[away > away.min()] if len(away) else away
    if len(others) < 2:
        return False
    far = max(float(others.mean() - _OUTSTANDING * others.std()), float(others.min()) - _GAP * len(space.heads))
    return float(away.min()) <= min(space.blur, far)


def _logs(prior: LanguagePrior, token: int, bundle: Bundle) -> Tensor:
    """Log probabilities of the token after another one ``[vocab]``."""
    return prior.step(torch.tensor([token], device=bundle.device))[0, : bundle.geometry.vocab].float().cpu()
