"""What comes next in text of the public corpus's kind: the language model, the corpus's pairs and its single tokens.

A language model that was made for other text misleads, a corpus alone knows little of what stands farther back. How far
each is trusted is what explains the corpus best (deleted interpolation: Jelinek and Mercer, 1980); pairs are smoothed
towards single tokens by how many kinds of token follow (Witten and Bell, 1991).
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from smd_research.mechanisms.privacy.survival import token_frequencies
from smd_research.models.bundle import Bundle
from smd_research.models.extension import LanguagePrior

DOCUMENTS, LENGTH = 64, 24
"""Public documents on which the weights are estimated, and how many tokens of each."""

MOST = 0.5
"""What the language model gets at most: one that read the corpus when it was trained looks better there than it is."""

_STEPS = 50

Floats = NDArray[np.float64]
Ids = NDArray[np.int64]


class Pairs:
    """Which tokens follow which in a corpus.

    Args:
        corpus: token ids of documents.
        vocab: size of the vocabulary.

    Attributes:
        single: smoothed frequencies ``[V]``.
    """

    def __init__(self, corpus: Sequence[Sequence[int]], vocab: int) -> None:
        self._vocab = vocab
        self._counts = token_frequencies(corpus, vocab)
        self.single: Floats = (self._counts + 1) / (self._counts.sum() + vocab)
        keys = [np.asarray(one[:-1], dtype=np.int64) * vocab + np.asarray(one[1:], dtype=np.int64) for one in corpus]
        self._keys, self._times = np.unique(np.concatenate([*keys, np.empty(0, np.int64)]), return_counts=True)
        self._starts = np.searchsorted(self._keys // vocab, np.arange(vocab + 1))
        self._totals = np.concatenate([[0], np.cumsum(self._times)])

    def after(self, token: int) -> Floats:
        """Probability of each token after one ``[V]``."""
        mine = slice(self._starts[token], self._starts[token + 1])
        kinds = mine.stop - mine.start
        if not kinds:
            return self.single
        found: Floats = self.single * kinds
        found[self._keys[mine] % self._vocab] += self._times[mine]
        found /= self._times[mine].sum() + kinds
        return found

    def of(self, before: Ids, after: Ids) -> Floats:
        """Probability of tokens ``[n]`` that follow others."""
        keys, single = before * self._vocab + after, self.single[after]
        places = np.searchsorted(self._keys, keys)
        found = np.append(self._keys, -1)[places] == keys
        times = np.where(found, np.append(self._times, 0)[places], 0)
        kinds, totals = self._starts[before + 1] - self._starts[before], self._followers(before)
        return np.divide(times + kinds * single, totals + kinds, out=single.copy(), where=kinds > 0)

    def left_out(self, before: Ids, after: Ids) -> tuple[Floats, Floats]:
        """Probability of each pair of the corpus ``[n]`` as all the rest of it has it, and that of its second token."""
        single = self._counts[after] / (self._counts.sum() + self._vocab - 1)
        times = self._times[np.searchsorted(self._keys, before * self._vocab + after)]
        kinds = self._starts[before + 1] - self._starts[before] - (times == 1)
        others = self._followers(before) - 1
        pairs = np.divide(times - 1 + kinds * single, others + kinds, out=single.copy(), where=others + kinds > 0)
        return pairs, single

    def _followers(self, tokens: Ids) -> Ids:
        """How often anything follows each token ``[n]``."""
        found: Ids = self._totals[self._starts[tokens + 1]] - self._totals[self._starts[tokens]]
        return found


class Context:
    """The mixture, with weights of the language model, pairs and single tokens.

    Args:
        bundle: the public model.
        corpus: public text of the same kind as what is attacked.
        lm_share: weight of the language model; None: what explains the corpus best, at most one half.

    Attributes:
        weights: of the three, they sum to one.
        opening: log probability of a text's first token ``[V]``.
    """

    def __init__(self, bundle: Bundle, corpus: Sequence[Sequence[int]], lm_share: float | None = None) -> None:
        self._bundle = bundle
        self._pairs = Pairs(corpus, bundle.geometry.vocab)
        first = token_frequencies([one[:1] for one in corpus], bundle.geometry.vocab) + self._pairs.single
        self.opening = torch.from_numpy(np.log(first / first.sum())).float().to(bundle.device)
        texts = [list(one[:LENGTH]) for one in corpus if len(one) >= LENGTH][:DOCUMENTS]
        if texts:
            self.weights = weights(self._explained(np.array(texts, dtype=np.int64)), lm_share)
        else:
            share = 0.5 if lm_share is None else lm_share
            self.weights = (share, 0.0, 1 - share)

    def reader(self, before: Sequence[int]) -> LanguagePrior:
        """The language model, behind public tokens that stand before the text."""
        model = LanguagePrior(self._bundle)
        for token in before:
            model.step(torch.tensor([token], device=self._bundle.device))
        return model

    def of(self, before: Tensor, after: Tensor, model: Tensor) -> Tensor:
        """Log probability ``[n]`` in float64 of tokens that follow others, given the language model's of them."""
        share, of_pairs, of_single = self.weights
        one, two = before.cpu().numpy(), after.cpu().numpy()
        corpus = of_pairs * self._pairs.of(one, two) + of_single * self._pairs.single[two]
        found = share * model.double().exp() + torch.from_numpy(corpus).to(model.device)
        return found.clamp_min(torch.finfo(torch.float64).tiny).log()

    def following(self, tokens: Tensor, model: Tensor) -> Tensor:
        """Log probability of the next token.

        Args:
            tokens: the last ones ``[b]``.
            model: the language model's log probabilities ``[b, V]``.
        """
        share, of_pairs, of_single = self.weights
        corpus = np.stack([of_pairs * self._pairs.after(token) for token in tokens.tolist()])
        corpus += of_single * self._pairs.single
        return torch.log(share * model.exp() + torch.from_numpy(corpus).to(model)).clamp_min(
            torch.finfo(model.dtype).min
        )

    def _explained(self, texts: Ids) -> Floats:
        """Probability of each token of texts ``[n, length]`` but their first, by each of the three ``[3, tokens]``."""
        model, found = LanguagePrior(self._bundle), []
        ids = torch.from_numpy(texts).to(self._bundle.device)
        for now, after in zip(ids.T[:-1], ids.T[1:], strict=True):
            found.append(model.step(now).gather(1, after[:, None])[:, 0].exp())
        pairs, single = self._pairs.left_out(texts[:, :-1].T.reshape(-1), texts[:, 1:].T.reshape(-1))
        return np.stack([torch.cat(found).cpu().double().numpy(), pairs, single])


def weights(explained: Floats, lm_share: float | None) -> tuple[float, float, float]:
    """Weights that make tokens likeliest (expectation maximisation).

    Args:
        explained: probability of each token by each of three sources ``[3, n]``.
        lm_share: weight of the first, where it is given; else it is at most :data:`MOST`.
    """
    found = np.full(3, 1 / 3) if lm_share is None else np.array([lm_share, (1 - lm_share) / 2, (1 - lm_share) / 2])
    for _ in range(_STEPS):
        joint = found[:, None] * explained
        found = (joint / joint.sum(0)).mean(1)
        if lm_share is not None:
            found[1:] *= (1 - lm_share) / max(found[1:].sum(), np.finfo(float).tiny)
            found[0] = lm_share
    if lm_share is None and found[0] > MOST:
        return weights(explained, MOST)
    first, second, third = found.tolist()
    return first, second, third
