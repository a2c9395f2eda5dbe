"""Layers above the first: the row space read from left to right.

Where the first layers run in the vault, the lowest layer whose replies cross still spans the prompt's values there. A
value of layer ``l`` depends on the tokens up to its own, which are known when a prompt is read from left to right: the
extension engine says what every next token's value would be, and the one in the span is the next token. Candidates come
in the language model's order, so the whole vocabulary is looked at only where the text surprises.

A text that repeats its first token repeats its values too, at every layer, so that the repetition always lies in the
span: a value that has been read before counts only where no other token stands out.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from attacks.prompts.partial_attention_inversion.row_space import RowSpace
from smd_research.models.bundle import Bundle
from smd_research.models.extension import Extension, ExtensionEngine, LanguagePrior, Prefix

_FIRST = 64  # candidates of the first batch
_SAME = 1e-4  # relative difference of values that rounding explains
_OUTSTANDING = 8.0  # deviations that a token of a blurred span stands out of the others


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
        self.engine = ExtensionEngine(bundle, layer + 1)
        self._bundle, self._layer = bundle, layer
        self._proposals, self._ranked = proposals, ranked
        self._openings: list[tuple[Tensor, Extension]] = []

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
        prefix, prior = self.engine.start(), LanguagePrior(self._bundle)
        order = self._first_order() if not public else None
        for token in public:
            self.engine.advance(prefix, token)
            order = _order(prior, token, self._bundle)
        reading = LeftReading()
        values = torch.empty(0)
        for place in range(length):
            assert order is not None
            batches = self._opening(order) if prefix.length == 0 else self._extensions(prefix, order)
            best = self._nearest(space, batches, values)
            if not best.found and space.sharp:
                break
            reading.ids.append(int(best.tokens[0]))
            reading.ranked.append(tuple(best.tokens.tolist()))
            reading.found.append(best.found)
            values = torch.cat([values, best.value[None]]) if len(values) else best.value[None]
            if place + 1 < length:
                self.engine.advance(prefix, reading.ids[-1])
                order = _order(prior, reading.ids[-1], self._bundle)
        return reading

    def _nearest(self, space: RowSpace, batches: Iterator[tuple[Tensor, Extension]], before: Tensor) -> "_Nearest":
        """The candidates nearest to a span, looked for until one stands out whose value is not among those before."""
        tokens, told = torch.empty(0, dtype=torch.long), torch.empty(0, dtype=torch.bool)
        away, values = torch.empty(0, dtype=torch.float64), []
        for proposed, found in batches:
            values.append(found.own[self._layer][1].float().cpu())
            tokens, away = torch.cat([tokens, proposed.cpu()]), torch.cat([away, space.distance(values[-1])])
            told = torch.cat([told, _among(values[-1], before)])
            if _stands_out(space, away[~told]):
                break
        fresh = away.masked_fill(told, 0.0) if _stands_out(space, away[~told]) else away
        best = fresh.topk(min(self._ranked, len(fresh)), largest=False).indices
        return _Nearest(tokens[best], _stands_out(space, fresh), torch.cat(values)[best[0]])

    def _extensions(self, prefix: Prefix, order: Tensor) -> Iterator[tuple[Tensor, Extension]]:
        for batch in self.engine.in_batches(order[: self._proposals], _FIRST):
            yield batch, self.engine.extend(prefix, batch)

    def _opening(self, order: Tensor) -> Iterator[tuple[Tensor, Extension]]:
        """Extensions of the empty prefix, which are the same for all prompts and kept."""
        for index, batch in enumerate(self.engine.in_batches(order[: self._proposals], _FIRST)):
            if index == len(self._openings):
                found = self.engine.extend(self.engine.start(), batch)
                kept = {self._layer: found.own[self._layer]}
                self._openings.append((batch, Extension(found.hidden[:0], kept)))
            yield self._openings[index]

    def _first_order(self) -> Tensor:
        """The language model's order of a text's first token, where it knows how texts begin."""
        begin = self._bundle.tokenizer.bos_token_id
        if begin is None:
            return torch.arange(self._bundle.geometry.vocab, device=self._bundle.device)
        return _order(LanguagePrior(self._bundle), int(begin), self._bundle)


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
    spread, middle = float(others.std()), float(others.mean())
    return float(away.min()) <= min(space.blur, middle - _OUTSTANDING * spread)


def _order(prior: LanguagePrior, token: int, bundle: Bundle) -> Tensor:
    """Tokens by their probability after another one, the most likely first."""
    logs = prior.step(torch.tensor([token], device=bundle.device))[0]
    return logs[: bundle.geometry.vocab].argsort(descending=True)
