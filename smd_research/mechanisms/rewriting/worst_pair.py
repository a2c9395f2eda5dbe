"""The search for two texts that a written token tells apart the most: an ascent that changes a few tokens at a time."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from smd_research.mechanisms.rewriting.base import Rewriter

_ROUNDS, _TEXTS, _PREFIXES = 80, 6, 2
"""Rounds, and in each the changes of either text and of what was written."""
_SIZES, _STRIDES = (1, 2, 4, 8), (1, 1, 2)


@dataclass(frozen=True, eq=False)
class WorstPair:
    """Two texts, and the token that tells them apart the most at one place.

    Attributes:
        texts: token ids ``[2, n]``, first of the text that makes the token likelier.
        sent: what is written, of which the law at ``place`` depends on what stands before.
        place: where the token is drawn.
        token: that is drawn.
        ratio: of its two log probabilities, exactly; infinite where one of the texts rules it out.
    """

    texts: Tensor
    sent: tuple[int, ...]
    place: int
    token: int
    ratio: float


@dataclass(frozen=True, eq=False)
class Ascent:
    """Greedy coordinate ascent of the log ratio, from a pair of texts, over both and over what was written before.

    Each round changes either text a few times and keeps the best pair of all, then what was written before, and keeps
    what is better. A change writes one token in up to eight places, neighbours or every second one: any token that may
    be drawn, or, half of the time, one that stands there already, which a model that copies takes notice of. Ratios are
    those of exact laws, so that none is above what the mechanism costs. How much is tried depends on nothing that is
    found, and so is the same for every rewriter; what was written is left alone where no law sees it.

    Attributes:
        rewriter: whose laws are compared.
        free: places of a text that may be changed.
        drawable: tokens that may stand there, and may have been written ``[tokens]``.
    """

    rewriter: Rewriter
    free: Sequence[int]
    drawable: np.ndarray

    def climb(self, start: WorstPair, rng: np.random.Generator) -> WorstPair:
        """The best pair found; no worse than the one it starts from."""
        best = start
        for _ in range(_ROUNDS):
            best = self._other_texts(best, rng)
            for _ in range(_PREFIXES):
                best = self._other_sent(best, rng)
        return best

    def _other_texts(self, pair: WorstPair, rng: np.random.Generator) -> WorstPair:
        known = self._standing(pair)
        changed = [self._changed(text, self.free, known, rng) for text in pair.texts for _ in range(_TEXTS)]
        found = pair_at(self.rewriter, torch.cat([pair.texts, torch.stack(changed)]), pair.sent, pair.place)
        return max(pair, found, key=_ratio)

    def _other_sent(self, pair: WorstPair, rng: np.random.Generator) -> WorstPair:
        before = [place for place in self.rewriter.drawn(pair.sent) if place < pair.place]
        if not before:
            return pair
        sent = self._changed(torch.tensor(pair.sent), before, self._standing(pair), rng).tolist()
        if self.rewriter.conditions(sent) == self.rewriter.conditions(pair.sent):
            return pair
        return max(pair, pair_at(self.rewriter, pair.texts, sent, pair.place), key=_ratio)

    def _standing(self, pair: WorstPair) -> np.ndarray:
        """Drawable tokens of both texts and of what was written before, and the one that tells them apart."""
        written = [pair.sent[place] for place in self.rewriter.drawn(pair.sent) if place < pair.place]
        standing = np.array([*pair.texts[:, list(self.free)].flatten().tolist(), *written, pair.token])
        return standing[np.isin(standing, self.drawable)]

    def _changed(self, ids: Tensor, places: Sequence[int], known: np.ndarray, rng: np.random.Generator) -> Tensor:
        size, stride, start = rng.choice(_SIZES), rng.choice(_STRIDES), rng.integers(len(places))
        changed = ids.clone()
        changed[[places[(start + stride * k) % len(places)] for k in range(size)]] = int(
            rng.choice(self.drawable if rng.random() < 0.5 else known)
        )
        return changed


def pair_at(rewriter: Rewriter, texts: Tensor, sent: Sequence[int], place: int) -> WorstPair:
    """Of all pairs of some texts the one that the token drawn at a place tells apart the most, given those before it.

    Args:
        rewriter: whose laws are compared.
        texts: token ids ``[texts, n]``, special tokens in the same places.
        sent: what was written.
        place: one of those drawn.
    """
    logits = (rewriter.logits_at(part, sent, place) for part in rewriter.parts(texts, place + 1))
    laws = torch.cat([rewriter.softmax.log_law(part).cpu() for part in logits])
    spread = (laws.amax(0) - laws.amin(0)).nan_to_num(nan=0.0, posinf=torch.inf)  # nan: no text writes such a token
    token = int(spread.argmax())
    of_token = laws[:, token]
    pair = texts[[int(of_token.argmax()), int(of_token.argmin())]]
    return WorstPair(pair, tuple(sent), place, token, float(spread[token]))


def _ratio(pair: WorstPair) -> float:
    return pair.ratio
